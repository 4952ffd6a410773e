"""Boxes around the hot regions of a heatmap. Owns the rule and what it was chosen by, not what boxes are measured with.

A region is where the map, enlarged bilinearly as the overlay is, reaches HEAT_SHARE of its peak; each connected region
gets the smallest upright box around it.
"""

from typing import NamedTuple

import cv2
import numpy as np

from cxr.heatmaps.overlay import upsample_heatmap

# Share of a map's peak. Of 0.2 to 0.8 the one with the best mean IoU with the boxes of the validation splits that the
# shipped model was fitted on, NIH's and the phantom's, each counting half; docs/models.md has the figures.
HEAT_SHARE = 0.55
GRID = 256  # places per side at which a region may begin or end; one is 4 pixels of a picture of 1024


class HeatBox(NamedTuple):
    """The box around one hot region, in shares (0 to 1) of the picture's width and height from its top left corner.

    Attributes:
        strength: the region's peak as a share (0 to 1) of the map's; 1 for the strongest region.
    """

    left: float
    top: float
    width: float
    height: float
    strength: float


def boxes_from_heatmap(heatmap: np.ndarray, heat_share: float = HEAT_SHARE) -> list[HeatBox]:
    """Return a box around each region that reaches a share of the map's peak, the strongest first.

    Args:
        heatmap: float (h, w) >= 0 over the whole picture.
    Returns:
        No box where the map is all zero, else at least one. Regions that only touch at a corner are two.
    """
    if not heatmap.max() > 0:
        return []
    enlarged = upsample_heatmap(heatmap, GRID, GRID)
    hot = (enlarged >= heat_share * enlarged.max()).astype(np.uint8)
    num_regions, region_of, bounds, _ = cv2.connectedComponentsWithStats(hot, connectivity=4)
    peaks = [enlarged[region_of == region].max() / enlarged.max() for region in range(1, num_regions)]
    boxes = [
        HeatBox(*(float(value) / GRID for value in bounds[region, :4]), float(peak))
        for region, peak in enumerate(peaks, start=1)
    ]
    return sorted(boxes, key=lambda box: -box.strength)


def in_pixels(box: HeatBox, width: int, height: int) -> tuple[int, int, int, int]:
    """Return (x, y, w, h) of a box in whole pixels of a picture of that size: inside it, and at least one pixel."""
    x, w = _span(box.left, box.width, width)
    y, h = _span(box.top, box.height, height)
    return x, y, w, h


def _span(start: float, length: float, num_pixels: int) -> tuple[int, int]:
    first = min(round(start * num_pixels), num_pixels - 1)
    return first, max(round((start + length) * num_pixels) - first, 1)
