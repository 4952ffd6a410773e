"""Drawn lungs and hearts: masks of plausible size, side and shape."""

import cv2
import numpy as np

SIZE = 96


def ellipse(centre, radii, size=SIZE):
    """Fill an ellipse; centre and radii are (column, row), as shares of the side."""
    canvas = np.zeros((size, size), np.uint8)
    points = [(round(x * size), round(y * size)) for x, y in (centre, radii)]
    return cv2.ellipse(canvas, points[0], points[1], 0, 0, 360, 1, -1).astype(bool)


def chest(size=SIZE):
    """Return right lung, left lung and heart, bool (3, size, size); the heart lies over some of both lungs."""
    return np.stack(
        [
            ellipse((0.3, 0.45), (0.16, 0.32), size),
            ellipse((0.7, 0.45), (0.17, 0.32), size),
            ellipse((0.52, 0.6), (0.22, 0.17), size),
        ]
    )


def probabilities(masks):
    """Return float32 (h, w, 3): 0.9 inside, 0.1 outside."""
    return np.where(masks.transpose(1, 2, 0), 0.9, 0.1).astype(np.float32)
