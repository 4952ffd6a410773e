"""Whether outlines can be those of a chest: two lungs, and a heart, of plausible size, side and shape.

Owns the measures and their limits, which are fitted: smallest and largest value of each measure, of the lungs over
readers' outlines of 97 radiographs, of the heart over every second of 2,000 pictures of the phantom, widened on each
side by a quarter of what lies between the two. `python -m tools.train_anatomy --limits` prints such limits; over all
2,000 those of the heart are wider by up to 0.03. Tall, narrow chests are rare among the 97: the lower limit of
log_width_to_height is the smallest value that the outline network's own lungs take on 2,300 radiographs of NIH's where
their other measures are within limits. The upper one stays: it is what refuses the halves of a picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

WIDENING = 0.25  # of the span between the smallest and the largest value among known outlines, on each side
MIN_CELLS = 16  # a structure of fewer has no shape


@dataclass(frozen=True)
class Limits:
    """Between which values a measure lies, and what is said of those outside."""

    low: float
    high: float
    words: str


SIZE = "the lungs would be too small or too large for a radiograph of the chest"
SHAPE = "one of the lungs would not have the shape of a lung"
PLACE = "the two lungs would not lie beside each other as lungs do"
LUNG_LIMITS: Mapping[str, Limits] = {
    "share": Limits(0.106, 0.718, SIZE),
    "smaller_share": Limits(0.050, 0.335, SIZE),
    "log_area_ratio": Limits(-0.343, 0.674, "one lung would be much larger than the other"),
    "slimness_right": Limits(-0.098, 1.229, SHAPE),
    "slimness_left": Limits(0.075, 1.158, SHAPE),
    "solidity_right": Limits(0.759, 1.0, SHAPE),
    "solidity_left": Limits(0.805, 1.0, SHAPE),
    "distance": Limits(0.444, 0.585, PLACE),
    "level": Limits(-0.152, 0.238, PLACE),
    "tops": Limits(-0.121, 0.126, PLACE),
    "bottoms": Limits(-0.315, 0.399, PLACE),
    "log_width_to_height": Limits(-0.341, 0.577, PLACE),
    "filled_share": Limits(0.442, 0.739, PLACE),
}
HEART_SIZE, HEART_PLACE = "its size would not be that of a heart", "it would not lie between the lungs as hearts do"
HEART_SHAPE = "it would not have the shape of a heart"
HEART_LIMITS: Mapping[str, Limits] = {
    "width": Limits(0.256, 0.737, HEART_SIZE),
    "height": Limits(0.366, 0.777, HEART_SIZE),
    "centre": Limits(0.448, 0.677, HEART_PLACE),
    "level": Limits(0.464, 0.837, HEART_PLACE),
    "bottom": Limits(0.714, 1.057, HEART_PLACE),
    "log_width_to_height": Limits(-0.644, 0.416, HEART_SHAPE),
    "solidity": Limits(0.92, 1.0, HEART_SHAPE),  # the phantom's are 0.96 and more; a network's outline is rougher
}


@dataclass(frozen=True)
class _Extent:
    """Where a mask lies: first and last row and column, centre (row, column), in cells; and its number of cells."""

    top: int
    bottom: int
    left: int
    right: int
    centre: tuple[float, float]
    cells: int

    @property
    def height(self) -> int:
        return self.bottom - self.top + 1

    @property
    def width(self) -> int:
        return self.right - self.left + 1


def _extent(mask: np.ndarray) -> _Extent:
    rows, columns = np.nonzero(mask)
    ends = int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())
    return _Extent(*ends, (float(rows.mean()), float(columns.mean())), len(rows))


def measure_lungs(right: np.ndarray, left: np.ndarray, aspect: float) -> dict[str, float]:
    """Measure size, shape and place of two lungs that are not empty.

    Args:
        right, left: bool (h, w), the patient's sides, on a grid over the whole radiograph.
        aspect: width over height of the radiograph.
    Returns: the measures of LUNG_LIMITS: shares of the radiograph; logarithms of ratios; solidity, the share of its
        convex hull that a lung fills; distances as shares of the width or height that both lungs take together.
    """
    one, two = _extent(right), _extent(left)
    width = max(one.right, two.right) - min(one.left, two.left) + 1
    height = max(one.bottom, two.bottom) - min(one.top, two.top) + 1
    cell = aspect * right.shape[0] / right.shape[1]  # a cell's width over its height on the radiograph
    return {
        "share": (one.cells + two.cells) / right.size,
        "smaller_share": min(one.cells, two.cells) / right.size,
        "log_area_ratio": float(np.log(two.cells / one.cells)),
        "slimness_right": float(np.log(one.height / (one.width * cell))),
        "slimness_left": float(np.log(two.height / (two.width * cell))),
        "solidity_right": _solidity(right),
        "solidity_left": _solidity(left),
        "distance": (two.centre[1] - one.centre[1]) / width,
        "level": (two.centre[0] - one.centre[0]) / height,
        "tops": (two.top - one.top) / height,
        "bottoms": (two.bottom - one.bottom) / height,
        "log_width_to_height": float(np.log(width * cell / height)),
        "filled_share": (one.cells + two.cells) / (width * height),
    }


def _solidity(mask: np.ndarray) -> float:
    """Return the share of its convex hull that a mask fills, in cells of the grid."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - 1 - mask[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([first, rows], axis=1), np.stack([last, rows], axis=1)])  # have the mask's hull
    hull = cv2.fillConvexPoly(np.zeros(mask.shape, np.uint8), cv2.convexHull(ends.astype(np.int32)), 1)
    return float(np.count_nonzero(mask) / max(np.count_nonzero(hull), 1))


def judge_lungs(right: np.ndarray, left: np.ndarray, aspect: float) -> str | None:
    """Say in one sentence why two masks, bool (h, w), are not those of two lungs; None where they may be."""
    missing = [side for side, mask in (("right", right), ("left", left)) if np.count_nonzero(mask) < MIN_CELLS]
    if missing:
        lungs = "lungs were" if len(missing) == 2 else "lung was"
        return f"No outline: the {' and the '.join(missing)} {lungs} not found."
    measures = measure_lungs(right, left, aspect)
    for name, limits in LUNG_LIMITS.items():
        if not limits.low <= measures[name] <= limits.high:
            return f"No outline: {limits.words}."
    return None


def measure_heart(heart: np.ndarray, right: np.ndarray, left: np.ndarray, aspect: float) -> dict[str, float]:
    """Measure a heart against two lungs, none of them empty.

    Returns: the measures of HEART_LIMITS: width and height, and where centre and lower edge lie from the right lung's
        edge and from the apex on, as shares of the width or height that both lungs take together; solidity.
    """
    lungs, found = _extent(right | left), _extent(heart)
    cell = aspect * heart.shape[0] / heart.shape[1]
    return {
        "width": found.width / lungs.width,
        "height": found.height / lungs.height,
        "centre": (found.centre[1] - lungs.left) / lungs.width,
        "level": (found.centre[0] - lungs.top) / lungs.height,
        "bottom": (found.bottom - lungs.top) / lungs.height,
        "log_width_to_height": float(np.log(found.width * cell / found.height)),
        "solidity": _solidity(heart),
    }


def judge_heart(heart: np.ndarray, right: np.ndarray, left: np.ndarray, aspect: float) -> str | None:
    """Say in one sentence why a mask, bool (h, w), is not that of the heart between two credible lungs."""
    if np.count_nonzero(heart) < MIN_CELLS:
        return "No outline of the heart: it was not found."
    measures = measure_heart(heart, right, left, aspect)
    for name, limits in HEART_LIMITS.items():
        if not limits.low <= measures[name] <= limits.high:
            return f"No outline of the heart: {limits.words}."
    return None
