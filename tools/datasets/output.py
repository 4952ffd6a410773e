"""Three splits to CSV files in the project's schema, boxes to NIH's form, and the table that is printed."""

import csv
import filecmp
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from cxr.system.atomic_files import TEMP_PREFIX
from tools.datasets.collection import PRESENT, UNLABELLED, Collection, PrepareError, SourceBox

CSV_NAMES = {"train": "train-small.csv", "val": "val_data.csv", "test": "test_data.csv"}
BOXES_NAME = "boxes.csv"
BOX_HEADER = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", "")
CELLS = np.array(["0", "1", ""], dtype=object)  # of ABSENT, PRESENT, UNLABELLED


def write_splits(splits: Mapping[str, Collection], boxes: Sequence[SourceBox], out: Path, overwrite: bool) -> None:
    """Write the three CSVs, and the boxes where there are any; each file whole or not at all.

    Raises: PrepareError where a file is there that holds something else, before anything is replaced.
    """
    writers: dict[str, Callable[[TextIO], None]] = {
        CSV_NAMES[name]: lambda file, part=part: _write_rows(part, file) for name, part in splits.items()
    }
    if boxes:
        writers[BOXES_NAME] = lambda file: _write_boxes(boxes, file)
    out.mkdir(parents=True, exist_ok=True)
    temps = {name: out / f"{TEMP_PREFIX}{name}" for name in writers}
    try:
        for name, write in writers.items():
            with temps[name].open("w", encoding="utf-8", newline="\n") as file:
                write(file)
        for name, temp in temps.items():
            path = out / name
            if path.exists() and not overwrite and not filecmp.cmp(path, temp, shallow=False):
                raise PrepareError(f"{path} exists and holds other data. Choose another --out, or add --overwrite.")
        for name, temp in temps.items():
            temp.replace(out / name)
    finally:
        for temp in temps.values():
            temp.unlink(missing_ok=True)


def _write_rows(part: Collection, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    patients = ["Patientid"] if part.patients_known else []
    writer.writerow(["Image", *part.findings, *patients])
    for image, patient, labels in zip(part.images, part.patients, part.labels, strict=True):
        writer.writerow([image, *CELLS[labels], *([patient] if part.patients_known else ())])


def _write_boxes(boxes: Sequence[SourceBox], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(BOX_HEADER)
    for box in boxes:
        numbers = [f"{value:.15g}" for value in (box.x, box.y, box.width, box.height)]
        writer.writerow([box.image, box.finding, *numbers, "", "", ""])


def describe(splits: Mapping[str, Collection], boxes: Sequence[SourceBox]) -> str:
    """Return the table of images, patients and positives, what was left out and why, and the source's notes."""
    data = next(iter(splits.values()))
    width = max(28, *(len(finding) for finding in data.findings)) if data.findings else 28
    lines = [" " * width + "".join(f"{CSV_NAMES[name]:>18}" for name in splits)]

    def row(title: str, cells: Sequence[object]) -> str:
        return f"{title:<{width}}" + "".join(f"{cell if isinstance(cell, str) else f'{cell:,}':>18}" for cell in cells)

    parts = splits.values()
    lines.append(row("images", [len(part.images) for part in parts]))
    known = data.patients_known
    lines.append(row("patients", [len(set(part.patients)) if known else "not known" for part in parts]))
    counts = {finding: [_count(part, column) for part in parts] for column, finding in enumerate(data.findings)}
    lines.append("positives" + (" (labelled)" if any((part.labels == UNLABELLED).any() for part in parts) else ""))
    lines += [row(f"  {finding}", cells) for finding, cells in counts.items()]
    without = [int((~(part.labels == PRESENT).any(axis=1)).sum()) for part in parts]
    lines.append(row("  none of these", without))
    if boxes:
        in_test = set(splits["test"].images)
        num_tested = sum(box.image in in_test for box in boxes)
        lines.append(f"{BOXES_NAME}: {len(boxes):,} boxes, {num_tested:,} of them on images of the test split")
    lines += [f"left out: {number:,} rows, {reason}" for reason, number in sorted(data.left_out.items())]
    lines += data.notes
    return "\n".join(lines)


def _count(part: Collection, column: int) -> str:
    labels = part.labels[:, column]
    num_positive, num_unlabelled = int((labels == PRESENT).sum()), int((labels == UNLABELLED).sum())
    return f"{num_positive:,}" + (f" ({len(labels) - num_unlabelled:,})" if num_unlabelled else "")
