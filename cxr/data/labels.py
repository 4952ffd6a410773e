"""Own the CSV schema: one file -> image names, patients and a 0/1 label matrix, with every problem recorded by line.

A CSV has an image column, a patient column and one column per finding. Nothing is guessed: all cells are text until
converted here, and columns are taken by name, never by position. What the three files say together is in
`cxr.data.checks`.
"""

import array
import csv
import functools
import io
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.data.columns import IMAGE_KEYS, Columns, match_columns, name_key
from cxr.data.problems import ProblemList, shown

VIEW_KEYS = ("viewposition", "view", "ap/pa")  # NIH's, in short, and CheXpert's
UNCERTAIN_VALUES = {"zero": 0.0, "one": 1.0, "blank": float("nan")}
LABEL_PATTERN = re.compile(r"([01])(?:\.0*)?")
UNCERTAIN_PATTERN = re.compile(r"-1(?:\.0*)?")


class LabelError(ValueError):
    """Report label data, or a choice of how to read it, that the user can correct."""


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
    """

    name: str
    images: tuple[str, ...]
    patients: tuple[str, ...]
    labels: np.ndarray
    findings: tuple[str, ...]
    lines: tuple[int, ...] = ()

    def select(self, keep: np.ndarray) -> "Split":
        """Return the rows where the boolean mask `keep` is true."""
        rows = np.flatnonzero(keep)
        images, patients, lines = (
            tuple(values[row] for row in rows) if values else () for values in (self.images, self.patients, self.lines)
        )
        return Split(self.name, images, patients, self.labels[rows], self.findings, lines)


def top_folder(image: str) -> str:
    """Return the folder that an image name begins with, such as "nih" of "nih/00000001_000.png"; empty without one."""
    return image.partition("/")[0] if "/" in image else ""


@dataclass(frozen=True)
class CellRules:
    """Say how label cells that are neither 0 nor 1 are read.

    Args:
        allow_blank: an empty cell means "not labelled" (NaN) instead of a fault.
        uncertain: what -1 means: "zero", "one", "blank" (NaN), or None for a fault.
    """

    allow_blank: bool = False
    uncertain: str | None = None

    def __post_init__(self) -> None:
        if self.uncertain is not None and self.uncertain not in UNCERTAIN_VALUES:
            choices = ", ".join(UNCERTAIN_VALUES)
            raise LabelError(f"uncertain must be one of {choices}, or None for a fault. Received: {self.uncertain!r}")

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - a file's cells repeat; the rules are a few bytes
    def value(self, cell: str) -> float | None:
        """Return 0.0, 1.0 or NaN for a cell, None where it is a fault."""
        text = cell.strip()
        if match := LABEL_PATTERN.fullmatch(text):
            return float(match[1])
        if not text and self.allow_blank:
            return float("nan")
        if self.uncertain and UNCERTAIN_PATTERN.fullmatch(text):
            return UNCERTAIN_VALUES[self.uncertain]
        return None

    @functools.lru_cache(maxsize=1024)  # noqa: B019 - as above
    def explain(self, cell: str) -> str:
        """Say what is wrong with a cell for which `value` is None."""
        text = cell.strip()
        if not text:
            return "expected 0 or 1, received a blank cell. Fill it in, or use --allow blank to leave it unlabelled."
        if UNCERTAIN_PATTERN.fullmatch(text):
            return "expected 0 or 1, received -1 (uncertain). Give it a meaning: --allow uncertain-zero (-one, -blank)."
        return f"expected 0 or 1, received {shown(text)}. Correct the cell or remove the row."


def read_split(
    name: str,
    path: Path,
    file: str,
    problems: ProblemList,
    *,
    rules: CellRules,
    chosen: Sequence[str] | None = None,
    expected: Sequence[str] | None = None,
    option: str | None = None,
) -> Split | None:
    """Read one CSV and record everything that is wrong with it.

    Args:
        file: what messages call the file.
        chosen: the findings to keep, None for every column that is neither image nor patient.
        expected: the training file's findings; None when this is the training file.
        option: the flag that names the file, for messages; that of the split by default.

    Returns:
        The rows that could be read (a faulty cell is NaN), or None where the file or its header could not.
    """
    text = _read_text(path, option or f"--{name}-csv", file, problems)
    if text is None:
        return None
    records = _records(text, file, problems)
    header_line, header = next(records, (1, []))
    if not header:
        problems.fault("no rows", file, "no rows: expected a header line and at least one image.")
        return None
    columns = match_columns(header, header_line, file, problems, chosen, expected)
    if columns is None:
        return None
    return _read_rows(name, records, len(header), columns, rules, file, problems)


def read_views(path: Path) -> dict[str, str]:
    """Read which way the beam went, such as "AP" or "PA", of each image of a CSV that `read_split` took.

    Returns: image name -> text in capitals; empty where the file has no column of that kind.
    """
    problems = ProblemList()
    text = _read_text(path, "", path.name, problems)
    records = iter(()) if text is None else _records(text, path.name, problems)
    _, header = next(records, (1, []))
    keys = [name_key(cell) for cell in header]
    views = [position for position, key in enumerate(keys) if key in VIEW_KEYS]
    images = [position for position, key in enumerate(keys) if key in IMAGE_KEYS]
    if not views or not images:
        return {}
    whole = (cells for _, cells in records if len(cells) == len(header))
    return {posixpath.normpath(cells[images[0]].strip()): cells[views[0]].strip().upper() for cells in whole}


def _read_text(path: Path, option: str, file: str, problems: ProblemList) -> str | None:
    """Return the file's text, or None after recording why there is none."""
    flag = f"Correct the path or give another with {option}."
    if not path.is_file():
        found = "is not a regular file" if path.exists() else "does not exist"
        problems.fault("file", file, f"{path} {found}. {flag}")
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.fault("file", file, f"{path} cannot be read ({error.strerror}). {flag}")
        return None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        problems.fault("encoding", file, "UTF-16 text (byte order mark at offset 0). Save the file as UTF-8.", 1)
        return None
    try:
        text = data.decode("utf-8-sig")
        offset = data.find(b"\0")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte order mark.
        text, offset = None, error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
    if text is None or offset >= 0:
        line = len(re.findall(rb"\r\n|\r|\n", data[:offset])) + 1
        found = f"byte 0x{data[offset]:02x} at offset {offset} is not UTF-8 text"
        problems.fault("encoding", file, f"{found}. Save the file as UTF-8 without binary data.", line)
        return None
    return text


def _records(text: str, file: str, problems: ProblemList) -> Iterator[tuple[int, list[str]]]:
    """Yield (first line, cells) of each record that is not blank; a record that is no CSV ends the file."""
    # newline="" leaves line ends inside quoted cells as they are, and takes LF, CRLF and bare CR alike.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = f"the record that starts here is not valid CSV ({error}). Check its quotes; reading stopped."
            problems.fault("syntax", file, message, line)
            return
        if len(cells) > 1 or (cells and cells[0].strip()):
            yield line, cells


def _read_rows(
    name: str,
    records: Iterator[tuple[int, list[str]]],
    num_columns: int,
    columns: Columns,
    rules: CellRules,
    file: str,
    problems: ProblemList,
) -> Split:
    """Convert the records below the header."""
    images, patients, lines, values = [], [], [], array.array("f")
    positions = list(columns.findings.values())
    known = {cell: rules.value(cell) for cell in ("0", "1", "0.0", "1.0")}
    num_bad = Counter()
    num_records = 0
    for line, cells in records:
        num_records += 1
        if len(cells) != num_columns:
            message = f"expected {num_columns} fields as in the header, found {len(cells)}. Correct the row."
            problems.fault("row length", file, message, line)
            continue
        row = [known.get(cells[position]) for position in positions]
        if None in row:
            row = [rules.value(cells[position]) for position in positions]
            for finding, value, position in zip(columns.findings, row, positions, strict=True):
                if value is None:
                    num_bad[finding] += 1
                    problems.fault("label value", file, rules.explain(cells[position]), line, finding)
            row = [float("nan") if value is None else value for value in row]
        patient = cells[columns.patient].strip()
        if not patient:
            problems.fault("patient", file, "blank patient id. Without it a patient may be in two splits.", line)
        reason = _unsafe_name(cells[columns.image])
        if reason:
            problems.fault("image name", file, f"{reason}: {shown(cells[columns.image])}.", line)
            continue
        images.append(posixpath.normpath(cells[columns.image].strip()))
        patients.append(patient)
        lines.append(line)
        values.extend(row)
    if num_records == 0:
        problems.fault("no rows", file, "no rows: the file has a header only.")
    for finding, count in num_bad.items():
        if count == num_records > 1:
            message = f"none of its {count} values is a label. If it is no finding, name the findings with --findings."
            problems.fault("no label column", file, message, column=finding)
    labels = np.array(values, dtype=np.float32).reshape(len(images), len(positions))
    return Split(name, tuple(images), tuple(patients), labels, tuple(columns.findings), tuple(lines))


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
