"""How well outlines fit those of readers and of the phantom, and hearts the boxes and labels of Cardiomegaly."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines, heart_at, labels_at
from cxr.data.boxes import Box
from cxr.imaging.radiograph import read_radiograph
from cxr.system.csv_table import read_rows
from tools.anatomy.examples import read_mask
from tools.anatomy.heart_boxes import FINDING

Outline = Callable[[np.ndarray], Outlines]  # a radiograph, uint8 (height, width), to its outlines


def dice(found: np.ndarray, expected: np.ndarray) -> float:
    """Return twice the overlap of two masks over the sum of their sizes (Dice 1945), 1 where both are empty."""
    total = np.count_nonzero(found) + np.count_nonzero(expected)
    return 2 * np.count_nonzero(found & expected) / total if total else 1.0


def score_outlined(outline: Outline, folder: Path, use: str) -> dict[str, float]:
    """Return {image: Dice of both lungs together} on radiographs outlined by readers, at the masks' own size."""
    scores = {}
    for row in read_rows(folder / "lungs.csv"):
        if row["use"] == use:
            expected = read_mask(folder / "masks" / row["image"])[..., 0] > 127
            outlines = outline(read_radiograph(folder / "images" / row["image"]))
            scores[row["image"]] = dice(np.isin(labels_at(outlines, *expected.shape), (1, 2)), expected)
    return scores


def score_phantom(outline: Outline, folder: Path, split: str) -> dict[str, list[float]]:
    """Return the Dice of lungs, right lung, left lung and heart on each picture of a phantom's split."""
    scores: dict[str, list[float]] = {"lungs": [], "right_lung": [], "left_lung": [], "heart": []}
    for row in read_rows(folder / split):
        heart, left, right = (plane > 127 for plane in np.moveaxis(read_mask(folder / "masks" / row["Image"]), 2, 0))
        outlines = outline(read_radiograph(folder / "images" / row["Image"]))
        labels = labels_at(outlines, *heart.shape)
        scores["lungs"].append(dice(np.isin(labels, (RIGHT_LUNG, LEFT_LUNG)), right | left))
        scores["right_lung"].append(dice(labels == RIGHT_LUNG, right))
        scores["left_lung"].append(dice(labels == LEFT_LUNG, left))
        scores["heart"].append(dice(heart_at(outlines, *heart.shape), heart))
    return scores


class Hearts(NamedTuple):
    """The hearts of labelled radiographs, each field of length n; NaN where there is no ratio, or no box.

    Attributes:
        ratios: cardiothoracic ratios by the outlines.
        box_ratios: the same with the width of the reader's box in place of the heart's.
        labels: 1 where Cardiomegaly is labelled, else 0.
        patients: names.
    """

    ratios: np.ndarray
    box_ratios: np.ndarray
    labels: np.ndarray
    patients: list[str]


def measure_hearts(outline: Outline, table: Path, folder: Path, boxes: Sequence[Box]) -> Hearts:
    """Measure hearts on the radiographs of a table with columns Image, Patientid and Cardiomegaly."""
    widths = {box.image: box.width for box in boxes if box.finding == FINDING}
    rows, ratios, box_ratios = read_rows(table), [], []
    for row in rows:
        radiograph = read_radiograph(folder / row["Image"])
        height, width = radiograph.shape
        found = cardiothoracic_ratio(outline(radiograph), width, height)
        across = found.thorax[1] - found.thorax[0] if found else float("nan")
        ratios.append(found.ratio if found else float("nan"))
        box_ratios.append(widths.get(row["Image"], float("nan")) * width / across)
    labels = np.array([float(row[FINDING]) for row in rows])
    return Hearts(np.array(ratios), np.array(box_ratios), labels, [row["Patientid"] for row in rows])


def summary(scores: Sequence[float]) -> dict[str, float]:
    """Return number, mean, 10th percentile and smallest of scores, rounded to four places."""
    return {
        "images": len(scores),
        "mean_dice": round(float(np.mean(scores)), 4),
        "dice_10th_percentile": round(float(np.percentile(scores, 10)), 4),
        "smallest_dice": round(float(np.min(scores)), 4),
    }
