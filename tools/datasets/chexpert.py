"""CheXpert: train.csv, valid.csv and test.csv with `Path`, blank and uncertain labels, frontal and lateral films.

Columns and paths as in Irvin et al. 2019 (arXiv 1901.07031) and the files of CheXpert-v1.0-small: `Path` is
CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg, then Sex, Age, Frontal/Lateral, AP/PA and the 14
labels.
"""

import argparse
import re
from pathlib import Path

from tools.datasets.chexpert_labels import FINDINGS, LabelReader, add_label_arguments
from tools.datasets.collection import Collection, PrepareError
from tools.datasets.source_table import SourceTable, find_file, find_optional

HELP = "CheXpert-v1.0 or -small: train.csv, valid.csv (and test.csv) of Path and 14 labels"
PATIENT = re.compile(r"(?:^|/)(patient\d+)/")
TOP_FOLDER = re.compile(r"^CheXpert-v1\.0[^/]*/")  # the data set's own folder, which is --image-dir here
VIEWS = {"frontal": ("Frontal",), "lateral": ("Lateral",), "all": ("Frontal", "Lateral")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("folder", type=Path, help="folder of train.csv and valid.csv")
    parser.add_argument("--view", choices=VIEWS, default="frontal", help="films to take (default: frontal)")
    add_label_arguments(parser)


def read(args: argparse.Namespace) -> Collection:
    """Read the tables; the splits are CheXpert's own, and a test split that is not there is drawn."""
    data = Collection(FINDINGS)
    labels = LabelReader(args.blank, args.uncertain)
    files = {"train": find_file(args.folder, "train.csv"), "val": find_optional(args.folder, "valid.csv")}
    files["test"] = find_optional(args.folder, "test.csv", "test_labels.csv")
    for split, path in files.items():
        if path is not None:
            _read_table(path, split, VIEWS[args.view], labels, data)
    if files["val"] and not files["test"]:
        data.notes.append("CheXpert's valid.csv is the validation split; the test split was drawn from train.csv.")
    data.notes += labels.notes()
    return data


def _read_table(path: Path, split: str, views: tuple[str, ...], labels: LabelReader, data: Collection) -> None:
    table = SourceTable(path, ("Path", *FINDINGS))
    image_of, cells_of = table.getter("Path"), table.getter(*FINDINGS)
    view_of = table.getter("Frontal/Lateral") if table.has("Frontal/Lateral") else _view_of_name(image_of)
    for line, cells in table.rows():
        (image,) = image_of(cells)
        patient = PATIENT.search(image)
        if patient is None:
            raise PrepareError(
                f"{path.name} line {line}: expected .../patientNNNNN/... as Path, received {image!r:.80}."
            )
        if view_of(cells)[0] not in views:
            data.leave_out("view not chosen (--view)")
            continue
        data.add(TOP_FOLDER.sub("", image), patient[1], labels.read(cells_of(cells), f"{path.name} line {line}"), split)


def _view_of_name(image_of):
    """Return a function that reads the view from the file's name: the test split's table has no column for it."""
    return lambda cells: ["Lateral" if "lateral" in image_of(cells)[0].rsplit("/", 1)[-1] else "Frontal"]
