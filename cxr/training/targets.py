"""What is learned beside the CSV's labels: boxes of the training pictures, and another model's probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cxr.data.boxes import Box, BoxError, BoxTargets, box_targets
from cxr.data.columns import name_key
from cxr.data.labels import Split
from cxr.data.problems import LabelError
from cxr.system.csv_table import TableError, read_table, records
from cxr.system.terminal import say

SOFT_SHARE = 0.5  # of the soft label beside the label itself

Targets = tuple[BoxTargets | None, np.ndarray | None]  # boxes, and soft labels (n, findings)


def training_targets(split: Split, boxes: Sequence[Box], box_weight: float, soft_label_file: Path | None) -> Targets:
    """Collect what the recipe asks for, and say how much of the training split it covers.

    Args:
        split: the training split.
        boxes: of any pictures.
        box_weight: 0 for no box targets.
        soft_label_file: None for no soft labels.

    Returns: the box targets and the soft labels, float32 (n, findings); None where they are not asked for.
    Raises:
        BoxError: boxes are asked for and there are none of training pictures.
        LabelError: the soft labels cannot be used.
    """
    targets = soft_labels = None
    if box_weight:
        targets = box_targets(boxes, split.images, split.findings, split.labels)
        if not targets.boxes:
            raise BoxError(
                f"--box-weight needs boxes of training pictures: none of {len(boxes)} boxes is of one that is labelled "
                "with the box's finding. Give them with --boxes, or leave out --box-weight."
            )
        say(f"Box loss: {targets.num_pairs} boxed findings in {len(targets.boxes)} training pictures.")
    if soft_label_file is not None:
        soft_labels, num_named = blend_soft_labels(soft_label_file, split)
        say(f"Soft labels: for {num_named} of {len(split.images)} training pictures.")
    return targets, soft_labels


def blend_soft_labels(path: Path, split: Split) -> tuple[np.ndarray, int]:
    """Blend the labels of a split with the probabilities of a table, in equal shares (Hinton et al. 2015).

    Args:
        path: a CSV with a column `Image` and a column for each finding of the split, values from 0 to 1, such as
            gradcam.py writes. Images that it does not name keep their labels; its other rows and columns are ignored.

    Returns:
        float32 (n, findings), NaN where the label is blank; and how many images of the split the table names.

    Raises:
        LabelError: as `read_probabilities`.
    """
    soft = read_probabilities(path, split, "--soft-labels")
    named = ~np.isnan(soft).any(axis=1)
    blended = np.where(named[:, None], (1 - SOFT_SHARE) * split.labels + SOFT_SHARE * soft, split.labels)
    return blended.astype(np.float32), int(named.sum())


def read_probabilities(path: Path, split: Split, flag: str) -> np.ndarray:
    """Read a table of probabilities for the images of a split that it names.

    Args:
        path: as `blend_soft_labels` takes it; of images named more than once the last row counts.
        flag: that the table was given to, for messages.

    Returns: float32 (n, findings), rows of NaN for images that are not named.

    Raises:
        LabelError: a column is missing, a value is no probability, or no image of the split is named.
    """
    try:
        table = list(records(read_table(path)))
    except TableError as error:
        raise LabelError(f"{path.name}{f' line {error.line}' if error.line else ''}: {error}") from error
    columns = _columns(path, table[0][1] if table else [], split.findings, flag)
    rows = {image: row for row, image in enumerate(split.images)}
    probabilities = np.full(split.labels.shape, np.nan, np.float32)
    for line, cells in table[1:]:
        row = rows.get(cells[columns[0]]) if len(cells) > max(columns) else None
        if row is None:
            continue
        probabilities[row] = [_probability(path, line, cells[column]) for column in columns[1:]]
    if np.isnan(probabilities).all():
        raise LabelError(
            f"{path.name}: none of its images is in the {split.name} split. Names must be those of the CSV, for "
            f"example {split.images[0]}."
        )
    return probabilities


def _columns(path: Path, header: Sequence[str], findings: Sequence[str], flag: str) -> list[int]:
    """Return the places of `Image` and of every finding in the header."""
    places = {name_key(name): place for place, name in enumerate(header)}
    missing = [name for name in ("Image", *findings) if name_key(name) not in places]
    if missing:
        raise LabelError(f"{path.name} line 1: missing column {', '.join(missing)}. Add it, or leave out {flag}.")
    return [places[name_key(name)] for name in ("Image", *findings)]


def _probability(path: Path, line: int, cell: str) -> float:
    """Read one cell."""
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 1:
        raise LabelError(f"{path.name} line {line}: expected a probability from 0 to 1, received '{cell[:40]}'.")
    return value
