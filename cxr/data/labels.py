"""The CSV schema: one file -> image names, patients and a 0/1 label matrix, with every problem recorded by line.

A CSV has an image column, a patient column and one column per finding. Nothing is guessed: all cells are text until
converted here, and columns are taken by name, never by position. What the three files say together is in
`cxr.data.checks`.
"""

import array
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cxr.data.columns import IMAGE_KEYS, ColumnRules, Columns, column_keys, match_columns
from cxr.data.problems import NUM_LISTED, DataProblems, shown
from cxr.data.vocabulary import CellRules
from cxr.system.csv_table import TableError, read_table, records

VIEW_KEYS = ("viewposition", "view", "ap/pa")  # NIH's, in short, and CheXpert's


@dataclass(frozen=True, eq=False)
class Split:
    """Hold one split in CSV order.

    Args:
        name: "train", "val" or "test".
        images: n file names below the image folder, each once.
        patients: n patient ids, as text ("007" is not "7").
        labels: float32 (n, findings), 0 or 1, NaN where the cell is blank.
        findings: column names of `labels`, in the order of the training CSV's header.
        lines: n line numbers in the CSV (1 is the header's), for messages; may be left out.
        patients_known: False where each image counts as a patient of its own because the table names none.
    """

    name: str
    images: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray
    findings: tuple[str, ...]
    lines: tuple[int, ...] = ()
    patients_known: bool = True

    def select(self, keep: np.ndarray) -> "Split":
        """Return the rows where the boolean mask `keep` is true."""
        rows = np.flatnonzero(keep)
        images, patients, lines = (
            tuple(values[row] for row in rows) if values else () for values in (self.images, self.patients, self.lines)
        )
        return replace(self, images=images, patients=patients, labels=self.labels[rows], lines=lines)


def top_folder(image: str) -> str:
    """Return the folder that an image name begins with, such as "nih" of "nih/00000001_000.png"; empty without one."""
    return image.partition("/")[0] if "/" in image else ""


def read_split(
    name: str,
    path: Path,
    file: str,
    problems: DataProblems,
    *,
    cell_rules: CellRules,
    column_rules: ColumnRules,
    expected: Sequence[str] | None = None,
    option: str | None = None,
) -> Split | None:
    """Read one CSV and record everything that is wrong with it.

    Args:
        file: what messages call the file.
        expected: the training file's findings; None when this is the training file.
        option: the flag that names the file, for messages; that of the split by default.

    Returns:
        The rows that could be read (a faulty cell is NaN), or None where the file or its header could not.
    """
    data = _read_data(path, option or f"--{name}-csv", file, problems)
    if data is None:
        return None
    rows = _recorded(records(data), file, problems)
    header_line, header = next(rows, (1, []))
    if not header:
        if not problems.has_fault(file):
            problems.fault("no rows", file, "no rows: expected a header line and at least one image.")
        return None
    columns = match_columns(header, header_line, file, problems, column_rules, expected)
    if columns is None:
        return None
    return _Rows(name, file, problems, columns, len(header), cell_rules).read(rows)


def read_views(path: Path, found: Mapping[str, str]) -> dict[str, str]:
    """Read which way the beam went, such as "AP" or "PA", of each image of a CSV that `read_split` took.

    Args:
        found: listed image name -> name of the file, where the two differ.
    Returns: name of the file -> text in capitals; empty where the table has no column of that kind.
    """
    problems = DataProblems()
    data = _read_data(path, "", path.name, problems)
    rows = iter(()) if data is None else _recorded(records(data), path.name, problems)
    _, header = next(rows, (1, []))
    keys = column_keys([cell.strip() for cell in header])
    views = [position for position, key in enumerate(keys) if key in VIEW_KEYS]
    if not views or IMAGE_KEYS[0] not in keys:
        return {}
    image = keys.index(IMAGE_KEYS[0])
    whole = (cells for _, cells in rows if len(cells) == len(header))
    listed = {posixpath.normpath(cells[image].strip()): cells[views[0]].strip().upper() for cells in whole}
    return {found.get(name, name): view for name, view in listed.items()}


def _read_data(path: Path, option: str, file: str, problems: DataProblems) -> bytes | None:
    """Return the file's text as UTF-8, or None after recording why there is none."""
    flag = f"Correct the path or give another with {option}."
    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        problems.fault("file", file, f"{path} {found}. {flag}")
        return None
    try:
        return read_table(path)
    except OSError as error:
        problems.fault("file", file, f"{path} cannot be read ({error.strerror}). {flag}")
    except TableError as error:
        problems.fault(error.kind, file, str(error), error.line)
    return None


def _recorded(
    rows: Iterator[tuple[int, list[str]]], file: str, problems: DataProblems
) -> Iterator[tuple[int, list[str]]]:
    """Yield the records; one that is no CSV is recorded and ends the file."""
    try:
        yield from rows
    except TableError as error:
        problems.fault(error.kind, file, str(error), error.line)


class _Rows:
    """Convert the records below a header, one by one, and record what is wrong with them."""

    def __init__(
        self, name: str, file: str, problems: DataProblems, columns: Columns, num_columns: int, rules: CellRules
    ) -> None:
        self.name, self.file, self.problems = name, file, problems
        self.columns, self.num_columns, self.rules = columns, num_columns, rules
        self.positions = list(columns.findings.values())
        self.known = {cell: rules.value(cell) for cell in ("0", "1", "0.0", "1.0")}
        self.images, self.patients, self.lines = [], [], []
        self.values = array.array("f")
        self.num_bad = Counter()  # by finding
        self.bad_cells: dict[str, list[tuple[int, str]]] = {}  # finding -> the first lines and cells

    def read(self, rows: Iterator[tuple[int, list[str]]]) -> Split:
        """Return what could be read."""
        num_records = num_kept = num_filtered = 0
        for line, cells in rows:
            num_records += 1
            if len(cells) != self.num_columns:
                message = f"expected {self.num_columns} fields as in the header, found {len(cells)}. Correct the row."
                self.problems.fault("row length", self.file, message, line)
            elif all(cells[place].strip() in values for place, values in self.columns.where.items()):
                num_kept += 1
                self._read_row(line, cells)
            else:
                num_filtered += 1
        if num_filtered == num_records:
            found = f"--where chooses none of its {num_records} rows" if num_records else "the file has a header only"
            self.problems.fault("no rows", self.file, f"no rows: {found}.")
        self._record_bad_cells(num_kept)
        labels = np.array(self.values, dtype=np.float32).reshape(len(self.images), len(self.positions))
        findings = tuple(self.columns.findings)
        known = self.columns.patient is not None
        return Split(self.name, tuple(self.images), tuple(self.patients), labels, findings, tuple(self.lines), known)

    def _read_row(self, line: int, cells: list[str]) -> None:
        row = [self.known.get(cells[position]) for position in self.positions]
        if None in row:
            row = [self._value(line, finding, cells[place]) for finding, place in self.columns.findings.items()]
        name = cells[self.columns.image]
        reason = _unsafe_name(name)
        if reason:
            self.problems.fault("image name", self.file, f"{reason}: {shown(name)}.", line)
            return
        image = posixpath.normpath(name.strip())
        patient = image if self.columns.patient is None else cells[self.columns.patient].strip()
        if not patient:
            message = "blank patient id. Without it a patient may be in two splits."
            self.problems.fault("patient", self.file, message, line)
        self.images.append(image)
        self.patients.append(patient)
        self.lines.append(line)
        self.values.extend(row)

    def _value(self, line: int, finding: str, cell: str) -> float:
        """Return a label; NaN after remembering a cell that is none."""
        value = self.rules.value(cell)
        if value is not None:
            return value
        self.num_bad[finding] += 1
        if self.num_bad[finding] <= NUM_LISTED:
            self.bad_cells.setdefault(finding, []).append((line, cell))
        return float("nan")

    def _record_bad_cells(self, num_rows: int) -> None:
        """Record cells that are no labels one by one; a column that holds no label at all, once."""
        listed = []
        for finding, cells in self.bad_cells.items():
            if self.num_bad[finding] == num_rows > 1:
                message = (
                    f"none of its {num_rows} values is a label, for example {shown(cells[0][1])}. If it is no finding, "
                    "name the findings with --findings. If it names findings, make the three CSVs with python -m "
                    "tools.prepare_data table --label-column."
                )
                self.problems.fault("no label column", self.file, message, column=finding)
                self.num_bad[finding] = 0
            else:
                listed += [(line, finding, cell) for line, cell in cells]
        for line, finding, cell in sorted(listed, key=lambda entry: entry[0])[:NUM_LISTED]:
            self.problems.fault("label value", self.file, self.rules.explain(cell), line, finding)
        self.problems.count_fault("label value", self.file, self.num_bad.total() - min(len(listed), NUM_LISTED))


def _unsafe_name(cell: str) -> str | None:
    """Say why an image name must not be used as a path below the image folder, None where it may."""
    image = cell.strip()
    if not image:
        return "blank image name"
    if not cell.isprintable():
        return "image name with a line break or control character"
    if image.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", image):
        return "image name that leaves the image folder"
    return None
