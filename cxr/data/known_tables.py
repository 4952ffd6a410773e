"""Recognise by their headers the tables that data sets come with, and columns that hold no finding.

A table that is recognised must first be made into the three CSVs; the advice names the command.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownTable:
    """A published table.

    Args:
        name: of the data set.
        source: what tools.prepare_data calls it.
        columns: the header holds all of these (lower case).
        lacks: and none of these, which a table of this project's form has.
        alone: the header holds nothing else.
    """

    name: str
    source: str
    columns: frozenset[str]
    lacks: frozenset[str] = frozenset()
    alone: bool = False


_OWN = frozenset({"image", "image index", "patientid"})
_IMAGES = frozenset({"image", "image index", "path", "dicom_id", "filename"})
# Columns: NIH, README_CHESTXRAY.pdf; CheXpert, Irvin et al. 2019, train.csv; MIMIC-CXR-JPG 2.1.0, physionet.org;
# VinDr-CXR 1.0.0, physionet.org, and its Kaggle contest; RSNA Pneumonia Detection Challenge, kaggle.com; PadChest,
# Bustos et al. 2020.
KNOWN_TABLES = (
    KnownTable("NIH ChestX-ray14", "nih", frozenset({"image index", "finding labels"})),
    KnownTable("CheXpert", "chexpert", frozenset({"path", "frontal/lateral"}), _OWN),
    KnownTable("MIMIC-CXR-JPG", "mimic-cxr-jpg", frozenset({"subject_id", "study_id"}), _IMAGES),
    KnownTable(
        "MIMIC-CXR-JPG", "mimic-cxr-jpg", frozenset({"dicom_id", "subject_id", "study_id", "split"}), alone=True
    ),
    KnownTable("MIMIC-CXR-JPG", "mimic-cxr-jpg", frozenset({"dicom_id", "performedprocedurestepdescription"}), _OWN),
    KnownTable("VinDr-CXR", "vindr", frozenset({"image_id", "rad_id"}), _OWN),
    KnownTable("VinDr-CXR", "vindr", frozenset({"image_id", "class_name"}), _OWN),
    KnownTable("the RSNA pneumonia challenge", "rsna", frozenset({"patientid", "target"}), _IMAGES),
    KnownTable("the RSNA pneumonia challenge", "rsna", frozenset({"patientid", "class"}), _IMAGES),
    KnownTable("PadChest", "padchest", frozenset({"imageid", "labels", "projection"}), frozenset({"image"})),
)
# Words of names that hold no finding, whatever is beside them ("AP view", "Patient Age", "Follow-up #").
_WORDS = frozenset({
    "sex", "gender", "age", "view", "projection", "follow", "followup", "fold", "split", "index", "unnamed", "date",
    "year", "birth", "birthdate", "ethnicity", "race", "insurance", "source", "dataset", "hospital", "manufacturer",
    "modality", "scanner", "viewposition", "patientsex", "patientage", "patientgender", "pixelspacing", "istrain",
    "isval", "istest",
})  # fmt: skip
# Whole names that hold none.
_NAMES = frozenset({
    "id", "studyid", "seriesid", "radid", "ap", "pa", "ll", "lateral", "frontal", "male", "female", "height", "width",
    "weight", "bmi", "portable", "kfold", "train", "val", "valid", "validation", "test", "subset", "partition",
    "imageheight", "imagewidth", "rows", "columns", "smoker", "classid",
})  # fmt: skip
_ROW_NUMBER = re.compile(r"unnamed:? ?_?\d+(\.\d+)?(_level_\d+)?")
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def known_table(names: Sequence[str]) -> str | None:
    """Say whose table this is and which command makes it usable, None where nobody's is recognised."""
    found = {name.strip().lower() for name in names}
    for table in KNOWN_TABLES:
        if table.columns <= found and not table.lacks & found and not (table.alone and found - table.columns):
            return (
                f"this is the table of {table.name} as it is published, expected Image, Patientid and one 0/1 column "
                f"per finding. Make the three CSVs of it: python -m tools.prepare_data {table.source} --help"
            )
    return None


def is_no_finding(name: str) -> bool:
    """Whether a column's name says that it holds no finding but a person's, picture's or table's property."""
    words = {word.lower() for word in _PARTS.findall(name)}
    letters = "".join(re.findall(r"[a-z0-9]", name.lower()))
    # "AP/PA", "Frontal/Lateral": every part is such a name.
    return bool(words & _WORDS) or letters in _WORDS | _NAMES or (len(words) > 1 and words <= _NAMES)


def is_row_number(name: str, position: int) -> bool:
    """Whether a column is what pandas writes for a frame's index: without a name, or "Unnamed: 0" when read again."""
    return bool(_ROW_NUMBER.fullmatch(name.strip().lower())) or (not name and position == 0)
