"""The vocabulary of tables: what a label cell means, which labels exclude each other, which names are no findings, and
the tables that data sets come with.

A published table that is recognised must first be made into the three CSVs; the advice names the command.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr.data.problems import LabelError, shown

BLANK, ZERO, ONE = float("nan"), 0.0, 1.0
UNCERTAIN_VALUES = {"zero": ZERO, "one": ONE, "blank": BLANK}
BLANK_VALUES = {"unlabelled": BLANK, "zero": ZERO}
# How databases, spreadsheets, pandas and R write truth values, and readers theirs.
WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "positive", "pos", "present"), ONE),
    **dict.fromkeys(("false", "f", "no", "n", "negative", "neg", "absent"), ZERO),
}
LABEL_PATTERN = re.compile(r"([01])(?:\.0*)?")
UNCERTAIN_PATTERN = re.compile(r"-1(?:\.0*)?")
# Names that say that there is nothing, by their letters: "No Finding", "no-finding", "Normal study".
NONE_PATTERN = re.compile(
    r"(normal|healthy|unremarkable|negative|none"
    r"|(no|without)(acute|active|significant|relevant|other)?(cardiopulmonary)?"
    r"(finding|abnormality|abnormalitie|disease|pathology|pathologie|lesion|change)s?)+(study|chest|xray|film|case|exam)?"
)
# CheXpert's labeller sets No Finding where no disease is mentioned; tubes and pacemakers may be there all the same
# (Irvin et al. 2019, section 3).
COMPATIBLE_KEY = "supportdevices"
MISSING_WORDS = ("na", "nan", "n/a", "null", "none")  # how R, pandas and databases write an empty cell


@dataclass(frozen=True)
class CellRules:
    """Say how label cells that are no truth value are read.

    Args:
        blank: what an empty cell means: "unlabelled" (NaN), "zero", or None for a fault.
        uncertain: what -1 means: "zero", "one", "blank" (NaN), or None for a fault.
    """

    blank: str | None = None
    uncertain: str | None = None

    def __post_init__(self) -> None:
        for name, values in (("uncertain", UNCERTAIN_VALUES), ("blank", BLANK_VALUES)):
            choice = getattr(self, name)
            if choice is not None and choice not in values:
                choices = ", ".join(values)
                raise LabelError(f"{name} must be one of {choices}, or None for a fault. Received: {choice!r}")

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - a file's cells repeat; the rules are a few bytes
    def value(self, cell: str) -> float | None:
        """Return 0.0, 1.0 or NaN for a cell, None where it is a fault."""
        text = cell.strip()
        if match := LABEL_PATTERN.fullmatch(text):
            return float(match[1])
        if text.lower() in WORDS:
            return WORDS[text.lower()]
        if self.blank and (not text or text.lower() in MISSING_WORDS):
            return BLANK_VALUES[self.blank]
        if self.uncertain and UNCERTAIN_PATTERN.fullmatch(text):
            return UNCERTAIN_VALUES[self.uncertain]
        return None

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - as above
    def explain(self, cell: str) -> str:
        """Say what is wrong with a cell for which `value` is None."""
        text = cell.strip()
        if not text or text.lower() in MISSING_WORDS:
            found = "a blank cell" if not text else f"{shown(text)}, which stands for a blank cell"
            return (
                f"expected 0 or 1, received {found}. Fill it in, or use --allow blank to leave it unlabelled, or "
                "--allow blank-zero where blank means absent."
            )
        if UNCERTAIN_PATTERN.fullmatch(text):
            return "expected 0 or 1, received -1 (uncertain). Give it a meaning: --allow uncertain-zero (-one, -blank)."
        return f"expected 0 or 1, received {shown(text)}. Correct the cell or remove the row."


def contradictions(keys: Sequence[str], labels: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Find the rows where "No Finding" is 1 beside a finding that is 1.

    Args:
        keys: (findings,) names as they are compared.
        labels: float (n, findings), 0, 1 or NaN.

    Returns: the rows; the columns of the findings beside it.
    """
    says_none = [bool(NONE_PATTERN.fullmatch("".join(filter(str.isalpha, key)))) for key in keys]
    none = [column for column, says in enumerate(says_none) if says]
    others = [column for column, key in enumerate(keys) if not says_none[column] and key != COMPATIBLE_KEY]
    positive = labels == 1
    rows = np.flatnonzero(positive[:, none].any(axis=1) & positive[:, others].any(axis=1))
    return rows, [column for column in others if positive[rows, column].any()]


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
    "modality", "scanner", "viewposition", "patientsex", "patientage", "patientgender", "pixelspacing", "pixel",
    "quality", "reader", "radiologist", "annotator", "visit", "accession", "accessionnumber", "inpatient", "outpatient",
    "mortality", "survival", "deceased", "died", "marital", "language", "institution", "photometric", "bbox", "icu",
    "reviewed", "verified", "exclude", "excluded", "birthday", "weekday",
})  # fmt: skip
# Whole names that hold none, and what they may stand beside: "isMale", "portable_xray", "smoker_yes".
_NAMES = frozenset({
    "id", "studyid", "seriesid", "radid", "ap", "pa", "ll", "lateral", "frontal", "male", "female", "height", "width",
    "weight", "weights", "bmi", "portable", "bedside", "kfold", "train", "val", "valid", "validation", "test", "subset",
    "partition", "imageheight", "imagewidth", "row", "rows", "columns", "smoker", "smoking", "classid", "study",
    "series", "site", "center", "centre", "ward", "emergency", "month", "time", "dob", "pregnant", "monochrome", "bits",
    "keep", "use", "uncertain", "box", "boxes", "mf", "fm", "report", "sample", "label", "labels", "findings",
    "stored", "inspiration", "rotated", "patient",
})  # fmt: skip
_FILLERS = frozenset({
    "is", "in", "of", "has", "the", "set", "yes", "flag", "xray", "film", "f", "m", "n", "num", "number", "count", "kg",
    "cm", "original", "image",
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
    # "AP/PA", "Frontal/Lateral", "is_male": every part is such a name, or may stand beside one.
    names = words - _FILLERS
    return bool(words & _WORDS) or letters in _WORDS | _NAMES or (bool(names) and names <= _NAMES)


def is_row_number(name: str, position: int) -> bool:
    """Whether a column is what pandas writes for a frame's index: without a name, or "Unnamed: 0" when read again."""
    return bool(_ROW_NUMBER.fullmatch(name.strip().lower())) or (not name and position == 0)
