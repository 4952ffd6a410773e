"""NIH's label table and split lists in, the rows of three splits by patient out.

Reads Data_Entry_2017_v2020.csv, train_val_list.txt and test_list.txt, plain or gzipped. Nothing is guessed: a line that
cannot be understood stops the work with its number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.system.csv_table import TableError, read_table, records
from tools.datasets.collection import PrepareError

# In the order of the sample's CSVs, spelled as in NIH's table.
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
NO_FINDING = "No Finding"
COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


@dataclass(frozen=True)
class Entry:
    """One row of the label table."""

    image: str
    patient: str
    findings: frozenset[str]


def read_entries(path: Path) -> dict[str, Entry]:
    """Read the label table: image name -> entry.

    Raises: PrepareError naming the line; OSError where the file cannot be read.
    """
    table = _records(path)
    header = [name.strip() for name in next(table, (1, []))[1]]
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise PrepareError(
            f"{path.name}: expected the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}. "
            "Give NIH's Data_Entry_2017_v2020.csv to --entries."
        )
    positions = [header.index(name) for name in COLUMNS]
    entries: dict[str, Entry] = {}
    for line, cells in table:
        where = f"{path.name} line {line}"
        if len(cells) <= max(positions):
            raise PrepareError(f"{where}: expected {len(header)} fields, found {len(cells)}. Download the file again.")
        image, labels, patient = (cells[position].strip() for position in positions)
        if image in entries:
            raise PrepareError(f"{where}: image {image!r} is there twice. Download the file again.")
        if not image or not patient:
            raise PrepareError(f"{where}: blank image name or patient. Download the file again.")
        entries[image] = Entry(image, patient, _parse_labels(labels, where))
    if not entries:
        raise PrepareError(f"{path.name}: no rows below the header. Download the file again.")
    return entries


def _parse_labels(text: str, where: str) -> frozenset[str]:
    """Turn "Edema|Effusion" into names, and "No Finding" into none."""
    names = frozenset(text.split("|"))
    unknown = names - {*FINDINGS, NO_FINDING}
    if unknown or (NO_FINDING in names and len(names) > 1):
        raise PrepareError(f"{where}: expected '{NO_FINDING}' or some of the 14 findings, received {text!r:.80}.")
    return names - {NO_FINDING}


def read_list(path: Path) -> list[str]:
    """Read a split list, one image name a line.

    Raises: PrepareError where it is empty or names an image twice.
    """
    names = [line.strip() for line in _read_text(path).splitlines() if line.strip()]
    if not names or len(set(names)) < len(names):
        raise PrepareError(
            f"{path.name}: expected image names, each once; found {len(names)}, {len(set(names))} distinct."
        )
    return names


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        yield from records(read_table(path))
    except TableError as error:
        raise _unreadable(path, error) from error


def _read_text(path: Path) -> str:
    try:
        return read_table(path).decode()
    except TableError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: TableError) -> PrepareError:
    return PrepareError(f"{path.name}{f' line {error.line}' if error.line else ''}: {error} Download the file again.")


def official_splits(
    entries: dict[str, Entry], train_val: Sequence[str], test: Sequence[str], subset: bool = False
) -> tuple[list[Entry], list[Entry]]:
    """Look up the images of NIH's two lists, in the lists' order.

    Args:
        subset: leave out listed images that are not in the table.

    Raises: PrepareError where a listed image is not in the table, or an image or a patient is in both lists.
    """
    if subset:
        train_val, test = ([name for name in names if name in entries] for names in (train_val, test))
        if not train_val or not test:
            raise PrepareError("no image of one of the lists is in the label table. Give those of one release.")
    unknown = [name for name in (*train_val, *test) if name not in entries]
    if unknown:
        raise PrepareError(
            f"{len(unknown)} listed images are not in the label table, for example {unknown[0]!r}. "
            "The table and the lists belong together; give those of one release, or, if a part of the data is all that "
            "you have, add --allow subset."
        )
    parts = [entries[name] for name in train_val], [entries[name] for name in test]
    for what, names in (
        ("images", set(train_val) & set(test)),
        ("patients", {e.patient for e in parts[0]} & {e.patient for e in parts[1]}),
    ):
        if names:
            raise PrepareError(
                f"{len(names)} {what} are in both lists. With them scores on the test split would be too good; give "
                "NIH's own lists."
            )
    return parts
