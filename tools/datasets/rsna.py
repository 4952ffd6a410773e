"""RSNA Pneumonia Detection Challenge: one row per box -> one row per image, boxes as they are.

Files and columns as on the challenge's page (https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data, and
Shih et al. 2019, doi 10.1148/ryai.2019180041): stage_2_train_labels.csv (patientId, x, y, width, height, Target) and
stage_2_detailed_class_info.csv (patientId, class); images are stage_2_train_images/PATIENTID.dcm, 1024 x 1024 pixels,
so that the boxes are in NIH's frame. patientId names an image: the pictures are NIH's, some of them of the same
person.
"""

import argparse
from pathlib import Path

from tools.datasets.boxes import framed_box
from tools.datasets.collection import BOX_FRAME, Collection, PrepareError
from tools.datasets.source_table import SourceTable, find_file, find_optional

HELP = "RSNA Pneumonia Detection Challenge: Target and boxes"
FINDING = "Pneumonia"
EXTENSION = ".dcm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("folder", type=Path, help="folder of stage_2_train_labels.csv")
    parser.add_argument(
        "--negatives",
        choices=("all", "normal"),
        default="all",
        help="images without opacity: all, or those alone that the readers called normal (default: all)",
    )


def read(args: argparse.Namespace) -> Collection:
    """Read the labels; there is no split of the challenge's own, whose test labels were never given out."""
    path = find_file(args.folder, "stage_2_train_labels.csv", "stage_1_train_labels.csv")
    columns = ("patientId", "x", "y", "width", "height", "Target")
    table = SourceTable(path, columns)
    getter = table.getter(*columns)
    targets: dict[str, int] = {}
    data = Collection((FINDING,), patients_known=False)
    for line, cells in table.rows():
        image, *box, target = getter(cells)
        where = f"{path.name} line {line}"
        if target not in ("0", "1") or not image:
            raise PrepareError(f"{where}: expected a patientId and a Target of 0 or 1, received {image!r}, {target!r}.")
        if targets.setdefault(image, int(target)) != int(target):
            raise PrepareError(f"{where}: {image} has both Targets. Download the file again.")
        if target == "1":
            data.boxes.append(framed_box(f"{image}{EXTENSION}", FINDING, _corners(box, where), (BOX_FRAME, BOX_FRAME)))
    normal = _normal_images(args.folder) if args.negatives == "normal" else None
    for image, target in targets.items():
        if not target and normal is not None and image not in normal:
            data.leave_out("neither opacity nor normal (--negatives normal)")
        else:
            data.add(f"{image}{EXTENSION}", image, [target])
    data.notes.append(
        "patientId names an image, not a person: each image counts as a patient. The pictures are NIH's, where people "
        "have several; scores may be too good."
    )
    return data


def _corners(box: list[str], where: str) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = map(float, box)
    except ValueError as error:
        raise PrepareError(f"{where}: expected x, y, width, height where Target is 1, received {box}.") from error
    return x, y, x + width, y + height


def _normal_images(folder: Path) -> set[str]:
    path = find_optional(folder, "stage_2_detailed_class_info.csv", "stage_1_detailed_class_info.csv")
    if path is None:
        raise PrepareError(f"--negatives normal needs stage_2_detailed_class_info.csv, which is not in {folder}.")
    table = SourceTable(path, ("patientId", "class"))
    pairs = map(table.getter("patientId", "class"), (cells for _, cells in table.rows()))
    return {image for image, name in pairs if name == "Normal"}
