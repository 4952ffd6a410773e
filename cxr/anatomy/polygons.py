"""Outlines as closed lines: smooth polygons for pages, panels and other programs, out of the labels of a grid."""

import cv2
import numpy as np

from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines

FINENESS = 4  # points of the drawn grid per cell of the labels' own
SMOOTHING = 1.0  # standard deviation, in cells, of the blur that takes the steps out of an outline
MAX_DEVIATION = 0.25  # cells by which a polygon may leave the smooth line
MIN_AREA = 4.0  # cells; smaller pieces are not drawn


def polygons_of(outlines: Outlines) -> dict[str, list[np.ndarray]]:
    """Return the polygons of each organ that is credible, the largest first.

    Returns: organ -> float64 (points, 2) arrays of x and y in shares of the picture's width and height, 0 to 1; none
        for an organ that is not credible.
    """
    masks = {
        "right_lung": (outlines.labels == RIGHT_LUNG) & outlines.lungs_credible,
        "left_lung": (outlines.labels == LEFT_LUNG) & outlines.lungs_credible,
        "heart": outlines.heart & outlines.heart_credible,
    }
    return {organ: _polygons(mask) for organ, mask in masks.items()}


def _polygons(mask: np.ndarray) -> list[np.ndarray]:
    height, width = mask.shape
    padded = np.pad(mask.astype(np.float32), 1)  # so that an outline at the border is closed along it
    smooth = cv2.GaussianBlur(padded, (0, 0), SMOOTHING, borderType=cv2.BORDER_CONSTANT)
    size = (FINENESS * smooth.shape[1], FINENESS * smooth.shape[0])
    fine = cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR) >= 0.5
    contours, _ = cv2.findContours(fine.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = [contour for contour in contours if cv2.contourArea(contour) >= MIN_AREA * FINENESS**2]
    polygons = []
    for contour in sorted(found, key=cv2.contourArea, reverse=True):
        points = cv2.approxPolyDP(contour, MAX_DEVIATION * FINENESS, closed=True)[:, 0]
        # Pixel centres of the fine, padded grid, in cells of the labels' grid.
        cells = (points + 0.5) / FINENESS - 1
        polygons.append(np.clip(cells / (width, height), 0, 1))
    return polygons
