"""The outlines of lungs and heart on one radiograph: the record, and how it comes from a network's probabilities.

Owns labels and their clean-up; whether they are to be believed is decided in credibility. Knows nothing of Keras.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from cxr.anatomy.credibility import judge_heart, judge_lungs

RIGHT_LUNG, LEFT_LUNG, HEART = 1, 2, 3  # labels; 0 is outside. Right is the patient's, the picture's left
INSIDE = 0.5  # probability from which on a cell belongs to a structure


@dataclass(frozen=True, eq=False)
class Outlines:
    """Where lungs and heart are on a radiograph, on a square grid over the whole of it (plain resize, no crop).

    The lungs go on behind the heart, as readers outline them, and end at the diaphragm. A cell that is both lung and
    heart is lung in `labels`; the heart as a whole, for its width or its own outline, is `heart`.

    Attributes:
        labels: uint8 (h, w): 0 outside, 1 right lung, 2 left lung, 3 heart where it is not in front of a lung. The
            right lung is the patient's, on the picture's left side.
        heart: bool (h, w), the whole heart.
        lungs_credible: whether there are two lungs of plausible size, side and shape.
        heart_credible: whether the heart lies and measures as hearts do; never without credible lungs.
        reason: why lungs or heart are not credible, one sentence; None where both are.
    """

    labels: np.ndarray
    heart: np.ndarray
    lungs_credible: bool
    heart_credible: bool
    reason: str | None


def labels_at(outlines: Outlines, height: int, width: int) -> np.ndarray:
    """Return the labels in a picture's own size, uint8 (height, width), by the nearest cell."""
    return cv2.resize(outlines.labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def credible_labels(outlines: Outlines) -> np.ndarray:
    """Return the labels, uint8 (h, w), of what is credible; 0 elsewhere."""
    labels = outlines.labels
    if not outlines.lungs_credible:
        return np.zeros_like(labels)
    return labels if outlines.heart_credible else np.where(labels == HEART, 0, labels).astype(np.uint8)


def heart_at(outlines: Outlines, height: int, width: int) -> np.ndarray:
    """Return the whole heart in a picture's own size, bool (height, width), by the nearest cell."""
    heart = outlines.heart.astype(np.uint8)
    return cv2.resize(heart, (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)


def outlines_from(probabilities: np.ndarray, aspect: float = 1.0) -> Outlines:
    """Turn a network's probabilities into outlines: one piece per structure, without holes, and whether to believe it.

    Args:
        probabilities: float (h, w, 3), of right lung, left lung and heart.
        aspect: width over height of the radiograph, whose grid is square whatever its shape.
    """
    sides = probabilities[..., :2].argmax(axis=-1)
    lungs = probabilities[..., :2].max(axis=-1) >= INSIDE  # no cell is in both lungs
    right, left = (largest_piece(lungs & (sides == side)) for side in (0, 1))
    heart = largest_piece(probabilities[..., 2] >= INSIDE)
    labels = np.zeros(right.shape, np.uint8)
    labels[heart], labels[right], labels[left] = HEART, RIGHT_LUNG, LEFT_LUNG
    reason = judge_lungs(right, left, aspect)
    heart_reason = reason or judge_heart(heart, right, left, aspect)
    return Outlines(labels, heart, reason is None, heart_reason is None, heart_reason)


def largest_piece(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected piece of a mask with its holes filled, bool (h, w)."""
    count, pieces, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros(mask.shape, bool)
    piece = pieces == 1 + statistics[1:, cv2.CC_STAT_AREA].argmax()
    # A hole is what the background around the picture does not reach.
    around = np.pad(~piece, 1, constant_values=True).astype(np.uint8)
    _, background = cv2.connectedComponents(around, connectivity=4)
    return (background != background[0, 0])[1:-1, 1:-1]
