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
GRID = 128  # places per side at which a region may begin or end; one is 8 pixels of a picture of 1024


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
    highest = enlarged.max()
    hot = cv2.compare(enlarged, float(heat_share * highest), cv2.CMP_GE)
    num_regions, region_of, bounds, _ = cv2.connectedComponentsWithStats(hot, connectivity=4, ltype=cv2.CV_16U)
    boxes = []
    for region in range(1, num_regions):  # 0 is what is not hot
        left, top, width, height = bounds[region, :4].tolist()
        window = slice(top, top + height), slice(left, left + width)
        peak = enlarged[window].max(initial=0, where=region_of[window] == region)
        boxes.append(HeatBox(left / GRID, top / GRID, width / GRID, height / GRID, float(peak / highest)))
    return sorted(boxes, key=lambda box: -box.strength)


def in_pixels(box: HeatBox, width: int, height: int) -> tuple[int, int, int, int]:
    """Return (x, y, w, h) of a box in whole pixels of a picture of that size: inside it, and at least one pixel."""
    x, w = _span(box.left, box.width, width)
    y, h = _span(box.top, box.height, height)
    return x, y, w, h


def _span(start: float, length: float, num_pixels: int) -> tuple[int, int]:
    first = min(round(start * num_pixels), num_pixels - 1)
    return first, max(round((start + length) * num_pixels) - first, 1)
