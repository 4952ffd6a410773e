"""Outlines as closed lines: smooth polygons for pages, panels and other programs, out of the labels of a grid."""

import cv2
import numpy as np

from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines

FINENESS = 3  # points of the drawn grid per cell of the labels' own
MARGIN = 3  # cells around an organ
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
    if not mask.any():
        return []
    # What is around the organ costs more than the organ itself; the margin lets the blur end in it.
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    part = np.pad(255 * mask[top : top + height, left : left + width].astype(np.uint8), MARGIN)
    smooth = cv2.GaussianBlur(part, (0, 0), SMOOTHING, borderType=cv2.BORDER_CONSTANT)
    size = (FINENESS * smooth.shape[1], FINENESS * smooth.shape[0])
    _, fine = cv2.threshold(cv2.resize(smooth, size, interpolation=cv2.INTER_LINEAR), 127, 1, cv2.THRESH_BINARY)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = [contour for contour in contours if cv2.contourArea(contour) >= MIN_AREA * FINENESS**2]
    polygons = []
    for contour in sorted(found, key=cv2.contourArea, reverse=True):
        points = cv2.approxPolyDP(contour, MAX_DEVIATION * FINENESS, closed=True)[:, 0]
        # Pixel centres of the fine part, in cells of the labels' grid.
        cells = (points + 0.5) / FINENESS + (left - MARGIN, top - MARGIN)
        polygons.append(np.clip(cells / mask.shape[::-1], 0, 1))
    return polygons
