"""Hearts known by a reader's box alone: which cells are heart and which are not, whatever margin the reader left.

Boxes as weak labels of a segmentation follow Dai et al. 2015, "BoxSup: Exploiting Bounding Boxes to Supervise
Convolutional Networks for Semantic Segmentation"; here the shape of hearts is known besides, from the phantom.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from cxr.data.boxes import Box
from tools.anatomy.examples import HEART, HEART_UNCLEAR, LEFT, NO_HEART_KNOWN, RIGHT, Examples

FINDING = "Cardiomegaly"  # the one whose boxes are drawn around the heart
SHAPE_CELLS = 64  # of the mean shape, on each side
# Between which shares of its width or height a box's edges (the picture's left and right) are moved inwards to lie on
# the heart. On 24 of NIH's the readers left about a tenth at the picture's left and a twentieth at its right; the lower
# edge lies at the diaphragm or below it, the upper one at the hila, and the phantom's hearts end above them.
MARGINS = {"left": (0.03, 0.15), "right": (0.01, 0.10), "top": (-0.25, 0.05), "bottom": (0.0, 0.22)}
DRAWS = 400  # hearts drawn into each box
SURE = (0.02, 0.95)  # shares of the hearts drawn in up to or from which a cell is surely outside or inside


def mean_heart(examples: Examples, count: int = 600) -> np.ndarray:
    """Return how often each part of a heart's bounding box is heart: float32 (SHAPE_CELLS, SHAPE_CELLS), 0 to 1."""
    shapes = []
    for flags in examples.flags[:count]:
        heart = np.float32(flags & HEART > 0)
        left, top, width, height = cv2.boundingRect(heart.astype(np.uint8))
        part = heart[top : top + height, left : left + width]
        shapes.append(cv2.resize(part, (SHAPE_CELLS, SHAPE_CELLS), interpolation=cv2.INTER_AREA))
    return np.mean(shapes, axis=0)


def heart_in_box(shape: np.ndarray, box: Box, size: int) -> np.ndarray:
    """Return how often each cell is heart over hearts of all margins drawn into a box: float32 (size, size), 0 to 1."""
    rng = np.random.default_rng(0)
    sums = np.zeros((size, size), np.float32)
    for _ in range(DRAWS):
        margin = {edge: rng.uniform(*limits) for edge, limits in MARGINS.items()}
        left, top = box.left + margin["left"] * box.width, box.top + margin["top"] * box.height
        width = box.width * (1 - margin["left"] - margin["right"])
        height = box.height * (1 - margin["top"] - margin["bottom"])
        scale = size / SHAPE_CELLS
        matrix = np.float32([[width * scale, 0, left * size], [0, height * scale, top * size]])
        sums += cv2.warpAffine(shape, matrix, (size, size), flags=cv2.INTER_LINEAR)
    return sums / DRAWS


def boxed_hearts(guessed: Examples, boxes: Sequence[Box], shape: np.ndarray) -> Examples:
    """Return the guessed examples with a box of FINDING, their hearts known by it; border cells HEART_UNCLEAR."""
    by_image = {box.image: box for box in boxes if box.finding == FINDING}
    chosen = [k for k, name in enumerate(guessed.names) if name in by_image]
    if not chosen:
        raise ValueError(f"No box of {FINDING} is on a radiograph with credible lungs. Check --heart-boxes.")
    flags = []
    for k in chosen:
        share = heart_in_box(shape, by_image[guessed.names[k]], guessed.flags.shape[1])
        heart = HEART * (share >= SURE[1]) + HEART_UNCLEAR * ((share > SURE[0]) & (share < SURE[1]))
        flags.append((guessed.flags[k] & (RIGHT | LEFT)) | heart.astype(np.uint8))
    names = [guessed.names[k] for k in chosen]
    return Examples(guessed.pictures[chosen], np.stack(flags), guessed.aspects[chosen], names)


def without_hearts(examples: Examples) -> Examples:
    """Return the examples with their hearts unknown."""
    return examples._replace(flags=(examples.flags & (RIGHT | LEFT)) | np.uint8(NO_HEART_KNOWN))
