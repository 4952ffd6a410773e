"""Which data a run is about: its three splits, the shipped sample, told by what it is, and labelled sets beside them.

On further sets a trained model is tested apart; their check reports in the form of the check of the splits.
"""

import argparse
import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.data.checks import DataCheck, check_splits
from cxr.data.columns import ColumnRules
from cxr.data.image_folder import check_images
from cxr.data.labels import Split, read_split, top_folder
from cxr.data.leakage import count_shared_images, count_shared_patients, without_duplicates
from cxr.data.problems import DataProblems
from cxr.data.vocabulary import CellRules

SAMPLE_DATA = "synthetic radiographs of a digital phantom, no patients"
# Split -> number of images, and their identity.
SAMPLE_SPLITS = {
    "train": (480, "60c04c4995e7a6b7745d118bb291a3ddfdeb93f312ebb537d34199606d4947a6"),
    "val": (120, "57836b3a0d26159725d48d4a7e4058d24b43e002842fdae1af9e32b44d2aea10"),
    "test": (240, "76cbd25f1b61a9c66d4c9f734c45596ecba49ddde2ed4cc9c56badead2086be3"),
}
LEARNED_FROM = ("train", "val")  # the splits that a test set must share nothing with


def check_data(args: argparse.Namespace) -> DataCheck:
    """Check the three CSVs and images that the command line names."""
    with contextlib.ExitStack() as stack:
        decode = None
        if args.check == "deep":
            from cxr.decoding.file_decoder import FileDecoder  # the plain check must not wait for image libraries

            decode = stack.enter_context(FileDecoder()).decode
        return check_splits(
            args.train_csv,
            args.val_csv,
            args.test_csv,
            args.image_dir,
            findings=args.findings,
            where=args.where,
            **meanings(args),
            no_patients="no-patients" in args.allow,
            allow_leakage="leakage" in args.allow,
            skip_missing="missing" in args.allow,
            decode=decode,
        )


def meanings(args: argparse.Namespace) -> dict[str, str | None]:
    """Return what --allow says that a blank label and the label -1 mean, as CellRules takes it."""
    blank = {"blank": "unlabelled", "blank-zero": "zero"}
    return {
        "blank": next((blank[name] for name in args.allow if name in blank), None),
        "uncertain": next(
            (name.removeprefix("uncertain-") for name in args.allow if name.startswith("uncertain-")), None
        ),
    }


def is_sample(split: Split, image_dir: Path) -> bool:
    """Say whether a split holds the radiographs and patients of the sample's split of the same name.

    The order of rows, line ends and the choice of findings do not matter; the bytes of every image do, since NIH's
    radiographs have the sample's file names.

    Raises:
        OSError: an image cannot be read.
    """
    num_images, identity = SAMPLE_SPLITS[split.name]
    return len(split.images) == num_images and identity_of(split, image_dir) == identity


def identity_of(split: Split, image_dir: Path) -> str:
    """Return the SHA-256 over image names, patients and image files of a split, in the order of names."""
    identity = hashlib.sha256()
    for image, patient in sorted(zip(split.images, split.patients, strict=True)):
        content = hashlib.sha256((image_dir / image).read_bytes()).hexdigest()
        identity.update(f"{image}\t{patient}\t{content}\n".encode())
    return identity.hexdigest()


@dataclass(frozen=True)
class FurtherSet:
    """A labelled set as the command line names it."""

    name: str
    table: Path
    image_dir: Path


def common_folder(split: Split) -> str:
    """Return the folder that the names of all images of a split begin with; empty where they have none in common."""
    folders = {top_folder(image) for image in split.images}
    return folders.pop() if len(folders) == 1 else ""


def sources_of(train: Split, test_sets: Sequence[str]) -> tuple[str, ...]:
    """Return the test sets that are named after a folder of training images: each stands for a source of pictures.

    A folder alone makes no source: NIH's archives come in twelve that mean nothing.
    """
    folders = {top_folder(image) for image in train.images}
    return tuple(name for name in test_sets if name in folders)


def check_further_sets(
    sets: Sequence[FurtherSet],
    splits: Mapping[str, Split],
    image_dir: Path,
    *,
    rules: CellRules,
    where: Mapping[str, frozenset[str]] | None = None,
    no_patients: bool = False,
    allow_leakage: bool = False,
    skip_missing: bool = False,
) -> DataCheck:
    """Check each set for itself and against what the model learns from, and collect every problem.

    Args:
        splits: the checked splits by name; each set must have their findings, other columns are left out.
        where: column name -> values, as of the splits; a set without such a column is tested whole, which is said.
        image_dir: of the splits. Equal ids in a set of another folder may be other patients, as hospitals count from 1:
            there they are a warning.
    """
    problems, parts, found = DataProblems(), {}, {}
    findings = splits["train"].findings
    for one in sets:
        file = str(one.table)
        part = read_split(
            one.name,
            one.table,
            file,
            problems,
            cell_rules=rules,
            column_rules=ColumnRules(findings, where or {}, where_if_there=True, no_patients=no_patients),
            expected=findings,
            option=f"--also-test {one.name}",
        )
        if part is None:
            continue
        part = without_duplicates(part, file, problems)
        _check_leakage(
            part, file, splits, problems, allow_leakage, same_folder=one.image_dir.resolve() == image_dir.resolve()
        )
        images = check_images(one.image_dir, {one.name: part}, {one.name: file}, problems, skip_missing, None)
        parts, found = parts | images.parts, found | {one.name: images.found}
    return DataCheck(parts, tuple(problems.listed), dict(problems.counts), found=found)


def _check_leakage(
    part: Split,
    file: str,
    splits: Mapping[str, Split],
    problems: DataProblems,
    allow_leakage: bool,
    same_folder: bool,
) -> None:
    files = {part.name: file} | {name: f"the {name} split" for name in LEARNED_FROM}
    for name in LEARNED_FROM:
        if same_folder:
            count_shared_images(part, splits[name], files, problems)
        count_shared_patients(part, splits[name], files, problems, allow_leakage or not same_folder)
