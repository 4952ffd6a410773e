"""Class folders: train/NORMAL/*.jpeg, train/PNEUMONIA/*.jpeg, and the same below val and test, or without splits.

The layout of Kaggle's "Chest X-Ray Images (Pneumonia)" (Kermany et al. 2018, doi 10.17632/rscbjbr9sj.2) and of many
others. Each class folder is a finding; those that mean none have 0 in every column.
"""

import argparse
import re
from pathlib import Path

from cxr.system.file_search import EXTENSIONS
from tools.datasets.collection import Collection, PrepareError

HELP = "class folders: train/NORMAL/*.jpeg, train/PNEUMONIA/*.jpeg, ..."
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
NONE_NAMES = "NORMAL,No Finding,Healthy,Negative"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("folder", type=Path, help="folder of train, val and test, or of the class folders themselves")
    parser.add_argument(
        "--none",
        default=NONE_NAMES,
        metavar="A,B",
        help=f"class folders that mean no finding (default: {NONE_NAMES})",
    )
    parser.add_argument(
        "--patient-pattern",
        type=_pattern,
        metavar="REGEX",
        help=r"where in a file's name its patient is, as a group: (person\d+)_ (default: each image is a patient)",
    )


def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern with one group, for argparse."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"no regular expression ({error})") from error
    if pattern.groups < 1:
        raise argparse.ArgumentTypeError("expected a group in parentheses around the patient's part of the name")
    return pattern


def read(args: argparse.Namespace) -> Collection:
    """List the pictures below the class folders; names stay relative to the given folder."""
    folder = args.folder
    if not folder.is_dir():
        raise PrepareError(f"{folder} is not a folder. Correct the path.")
    args.image_dir = args.image_dir or folder
    splits = {path: SPLIT_NAMES[path.name.lower()] for path in _folders(folder) if path.name.lower() in SPLIT_NAMES}
    tops = splits or {folder: ""}
    classes = sorted({path.name for top in tops for path in _folders(top)}, key=str.lower)
    none = {_key(name) for name in args.none.split(",")}
    findings = tuple(name for name in classes if _key(name) not in none)
    if len(classes) < 2 or not findings:
        raise PrepareError(
            f"{folder}: expected class folders such as train/NORMAL and train/PNEUMONIA, found "
            f"{', '.join(classes)[:300] or 'none'}."
        )
    data = Collection(findings, patients_known=args.patient_pattern is not None)
    for top, split in tops.items():
        for class_folder in _folders(top):
            labels = [int(class_folder.name == name) for name in findings]
            _add_pictures(class_folder, folder, labels, split, args.patient_pattern, data)
    if not data.patients_known:
        data.notes.append(
            "Folders name no patients: each image counts as one. If one has several images, scores may be too good; "
            "--patient-pattern takes the patient from the file names."
        )
    return data


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def _add_pictures(
    class_folder: Path, root: Path, labels: list[int], split: str, pattern: re.Pattern[str] | None, data: Collection
) -> None:
    for path in sorted(class_folder.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.suffix.lower() not in EXTENSIONS:
            data.leave_out("files that are no pictures by their extension")
            continue
        image = path.relative_to(root).as_posix()
        match = pattern.search(path.name) if pattern else None
        if pattern and match is None:
            data.leave_out("names without patient (--patient-pattern)")
            continue
        data.add(image, match[1] if match else image, labels, split)
