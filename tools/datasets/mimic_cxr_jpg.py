"""MIMIC-CXR-JPG: labels by study, views by image, the official split, and paths made from three numbers.

Files and columns as in the data set's description (version 2.1.0, https://doi.org/10.13026/jsn5-t979):
mimic-cxr-2.0.0-chexpert.csv.gz (subject_id, study_id, 14 labels), -negbio.csv.gz (the same), -metadata.csv.gz
(dicom_id, subject_id, study_id, ViewPosition, ...), -split.csv.gz (dicom_id, study_id, subject_id, split: train,
validate or test); images are files/p10/p10000032/s50414267/DICOM_ID.jpg.
"""

import argparse
from pathlib import Path

from tools.datasets.chexpert_labels import FINDINGS, LabelReader, add_label_arguments
from tools.datasets.collection import Collection, PrepareError
from tools.datasets.source_table import SourceTable, find_file

HELP = "MIMIC-CXR-JPG: labels by study, metadata and the official split, as .csv.gz"
SPLIT_NAMES = {"train": "train", "validate": "val", "test": "test"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of this source."""
    parser.add_argument("folder", type=Path, help="folder of mimic-cxr-2.0.0-metadata.csv.gz and its siblings")
    parser.add_argument(
        "--labeller",
        choices=("chexpert", "negbio"),
        default="chexpert",
        help="whose labels (default: chexpert)",
    )
    parser.add_argument(
        "--views",
        default="PA,AP",
        metavar="A,B",
        help="values of ViewPosition to take (default: PA,AP); all takes every film",
    )
    add_label_arguments(parser)


def read(args: argparse.Namespace) -> Collection:
    """Join the three tables; a study without labels is left out."""
    views = None if args.views == "all" else {view.strip() for view in args.views.split(",")}
    data, reader = Collection(FINDINGS), LabelReader(args.blank, args.uncertain)
    path = find_file(args.folder, "mimic-cxr-2*-split.csv")
    table = SourceTable(path, ("dicom_id", "split"))
    split_of = dict(map(table.getter("dicom_id", "split"), (cells for _, cells in table.rows())))
    unknown = set(split_of.values()) - set(SPLIT_NAMES)
    if unknown:
        raise PrepareError(f"{path.name}: expected the splits train, validate and test, found {sorted(unknown)[0]!r}.")
    labels_of = _read_labels(find_file(args.folder, f"mimic-cxr-2*-{args.labeller}.csv"), reader)
    table = SourceTable(
        find_file(args.folder, "mimic-cxr-2*-metadata.csv"), ("dicom_id", "subject_id", "study_id", "ViewPosition")
    )
    getter = table.getter("dicom_id", "subject_id", "study_id", "ViewPosition")
    for _, cells in table.rows():
        dicom, subject, study, view = getter(cells)
        if views is not None and view not in views:
            data.leave_out("view not chosen (--views)")
        elif study not in labels_of:
            data.leave_out("its study has no labels")
        elif dicom not in split_of:
            data.leave_out("not in the official split")
        else:
            image = f"p{subject[:2]}/p{subject}/s{study}/{dicom}.jpg"
            data.add(image, subject, labels_of[study], SPLIT_NAMES[split_of[dicom]])
    data.notes.append("Labels are those of the study's report, for each of its images.")
    data.notes += reader.notes()
    return data


def _read_labels(path: Path, reader: LabelReader) -> dict[str, bytes]:
    """Return study -> its labels."""
    table = SourceTable(path, ("study_id", *FINDINGS))
    study_of, cells_of = table.getter("study_id"), table.getter(*FINDINGS)
    return {
        study_of(cells)[0]: bytes(reader.read(cells_of(cells), f"{path.name} line {line}"))
        for line, cells in table.rows()
    }
