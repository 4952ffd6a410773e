"""How well outlines fit those of readers, and of the phantom."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines, heart_at, labels_at
from cxr.imaging.radiograph import read_radiograph
from cxr.system.csv_table import read_rows
from tools.anatomy.examples import read_mask

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


def summary(scores: Sequence[float]) -> dict[str, float]:
    """Return number, mean, 10th percentile and smallest of scores, rounded to four places."""
    return {
        "images": len(scores),
        "mean_dice": round(float(np.mean(scores)), 4),
        "dice_10th_percentile": round(float(np.percentile(scores, 10)), 4),
        "smallest_dice": round(float(np.min(scores)), 4),
    }
