"""What a request brings: files with cleaned names, or one of the shipped sample radiographs."""

import logging
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from cxr.data.columns import ColumnRules
from cxr.data.labels import read_split
from cxr.data.problems import ProblemList
from cxr.data.vocabulary import CellRules

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
MAX_NAME = 60  # characters that a page shows of a file name
# Radiographs of the shipped test split with one finding, or none: the model has not learned from them.
SAMPLE_NAMES = (
    "00000054_000.png",
    "00000173_000.png",
    "00000178_001.png",
    "00000096_000.png",
    "00000011_001.png",
    "00000003_000.png",
)


@dataclass(frozen=True, eq=False)
class Upload:
    """One file of a request.

    Attributes:
        name: cleaned, for the answer alone; never part of a path, never logged. May be empty.
        labels: the true findings, where it is a shipped sample.
    """

    name: str
    data: bytes
    labels: tuple[str, ...] | None = None


def clean_name(name: str) -> str:
    """Make a file name fit to be shown: its last part, without control, format and surrogate characters, shortened.

    Format characters can turn the text around or hide a part of it (Unicode, general categories Cc, Cf, Cs, Co, Cn).
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    spaced = (" " if one.isspace() else one for one in last)
    plain = " ".join("".join(one for one in spaced if unicodedata.category(one)[0] != "C").split())
    if plain in (".", ".."):
        return ""
    if len(plain) <= MAX_NAME:
        return plain
    tail = 15  # shows the extension
    return f"{plain[: MAX_NAME - tail - 1]}…{plain[-tail:]}"


def load_samples(root: Path = ROOT) -> dict[str, Upload]:
    """Read the shipped sample radiographs that exist, with their labels from the test split: name -> Upload."""
    table, problems = root / "test_data.csv", ProblemList()
    if not table.is_file():
        return {}
    lenient = CellRules(blank="unlabelled", uncertain="blank")  # a doubtful cell is no label, and no reason to stop
    split = read_split("test", table, table.name, problems, cell_rules=lenient, column_rules=ColumnRules())
    if split is None:
        logger.warning("No samples are shown. %s", problems.listed[0])
        return {}
    rows = {image: row for row, image in enumerate(split.images)}
    samples = {}
    for name in SAMPLE_NAMES:
        path = root / "images" / name
        if name in rows and path.is_file():
            present = split.labels[rows[name]] == 1
            labels = tuple(finding for finding, there in zip(split.findings, present, strict=True) if there)
            samples[name] = Upload(name, path.read_bytes(), labels)
    return samples
