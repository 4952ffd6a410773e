"""Where a heatmap's heat lies: side and zone by the outlines of lungs and heart, and how much of it is inside them.

A picture is divided into regions, each a side and a zone:

- upper, middle and lower zone: thirds of a lung's own height, from its highest to its lowest row;
- hilum: in the middle third, where the vessels enter a lung: within a fifth of the lung's greatest width of its inner
  edge, on either side of that edge, and not in the heart;
- heart: its silhouette, which covers a part of the lungs behind it; it has no side;
- outside the lungs: everything else. Its side is "middle" between the lungs, not under one of them, and otherwise that
  of the nearer lung.

Sides are the patient's: the right lung is on the picture's left. A radiograph shows zones, not lobes: these overlap.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from cxr.anatomy.outlines import LEFT_LUNG, RIGHT_LUNG, Outlines, credible_labels
from cxr.heatmaps.overlay import upsample_heatmap

SIDES = {"right": RIGHT_LUNG, "left": LEFT_LUNG}
THIRDS = ("upper zone", "middle zone", "lower zone")
HILUM, IN_HEART, OUTSIDE = "hilum", "heart", "outside the lungs"
# Share of the heat outside lungs and heart from which on it is said: 5 % of the findings that reached their chosen
# threshold on NIH's validation split had as much (28 of 559).
MUCH_OUTSIDE = 0.6
# Share of the heat in a region below which it is spread out, and a summary names no place: below it the region of peak
# and largest part was under the reader's box in 23 of 28 of NIH's cases, from here on in 19 of 20.
SPREAD_OUT = 0.3
ENOUGH_CELLS = 96  # on each side of the grid on which places are told
HILUM_REACH = 0.2  # of a lung's greatest width, on either side of its inner edge


@dataclass(frozen=True)
class Region:
    """A part of the picture.

    Attributes:
        side: "right", "left" or "middle"; the patient's.
        zone: one of THIRDS, "hilum", "heart" or "outside the lungs".
    """

    side: str
    zone: str

    @property
    def words(self) -> str:
        """Return its name, such as "left lower zone", "heart" or "between the lungs"."""
        if self.zone == IN_HEART:
            return IN_HEART
        if self.zone == OUTSIDE:
            return "between the lungs" if self.side == "middle" else f"{OUTSIDE} on the {self.side}"
        return f"{self.side} {self.zone}"


REGIONS = (
    Region("middle", OUTSIDE),
    Region("middle", IN_HEART),
    *(Region(side, zone) for side, zone in product(SIDES, (*THIRDS, HILUM, OUTSIDE))),
)


@dataclass(frozen=True)
class Place:
    """Where the heat of one heatmap lies.

    Attributes:
        peak: the region of its hottest cell's centre.
        largest: the region that holds more of its heat than any other.
        largest_share: the share of the heat in that region, 0 to 1.
        share_inside: the share of the heat inside lungs and heart, as far as these are credible, 0 to 1.
    """

    peak: Region
    largest: Region
    largest_share: float
    share_inside: float

    @property
    def side(self) -> str:
        return self.largest.side

    @property
    def zone(self) -> str:
        return self.largest.zone

    @property
    def words(self) -> str:
        return self.largest.words

    @property
    def spread_out(self) -> bool:
        """Whether no region holds much of the heat."""
        return self.largest_share < SPREAD_OUT

    @property
    def definite(self) -> bool:
        """Whether a summary may name it: peak and a large part of the heat agree on one region inside."""
        return self.peak == self.largest and not self.spread_out and self.zone != OUTSIDE

    @property
    def much_outside(self) -> bool:
        """Whether so much heat lies outside lungs and heart that the model may have looked at something else."""
        return 1 - self.share_inside >= MUCH_OUTSIDE


def places_of(heatmaps: np.ndarray, outlines: Outlines) -> list[Place | None]:
    """Return where the heat of each of n maps, (n, h, w) >= 0, lies; None without heat, or without credible lungs."""
    if not outlines.lungs_credible or not heatmaps.any():
        return [None] * len(heatmaps)
    outlines = _thinned(outlines)
    regions = region_map(outlines)
    height, width = heatmaps.shape[1:]
    flat, inside, places = regions.ravel().astype(np.intp), credible_labels(outlines) > 0, []
    for heatmap in heatmaps:
        if not heatmap.any():
            places.append(None)
            continue
        enlarged = upsample_heatmap(heatmap, *regions.shape)
        shares = np.bincount(flat, enlarged.ravel(), len(REGIONS)) / enlarged.sum(dtype=np.float64)
        # A map that reaches as high in several cells has its peak in the first of them.
        row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
        at = int((row + 0.5) * regions.shape[0] / height), int((column + 0.5) * regions.shape[1] / width)
        largest = int(shares.argmax())
        peak, share = REGIONS[regions[at]], min(float(shares[largest]), 1.0)
        places.append(Place(peak, REGIONS[largest], share, share_inside(enlarged, inside)))
    return places


def _thinned(outlines: Outlines) -> Outlines:
    """Take every so many cells of a fine grid: a place is told by heatmaps of a dozen cells on each side at most."""
    step = max(1, min(outlines.labels.shape) // ENOUGH_CELLS)
    every = slice(step // 2, None, step)
    return replace(outlines, labels=outlines.labels[every, every], heart=outlines.heart[every, every])


def share_inside(enlarged: np.ndarray, inside: np.ndarray) -> float:
    """Return the share of the heat, (h, w) >= 0, that lies in a mask, bool (h, w); NaN without heat."""
    heat = float(enlarged.sum(dtype=np.float64))
    return min(float(enlarged[inside].sum(dtype=np.float64)) / heat, 1.0) if heat > 0 else float("nan")


def region_map(outlines: Outlines) -> np.ndarray:
    """Return the region of each cell of the outlines' grid: uint8 (h, w), positions in REGIONS."""
    labels = outlines.labels
    regions = _outside(labels)
    columns = np.arange(labels.shape[1])
    for side, label in SIDES.items():
        lung = labels == label
        rows = np.flatnonzero(lung.any(axis=1))
        if len(rows) == 0:
            continue
        top, num_rows = rows[0], rows[-1] + 1 - rows[0]
        third = (np.arange(labels.shape[0]) - top) * 3 // num_rows  # 0 upper, 1 middle, 2 lower
        for index, zone in enumerate(THIRDS):
            regions[lung & (third == index)[:, None]] = REGIONS.index(Region(side, zone))
        reach = HILUM_REACH * lung.sum(axis=1).max()
        for row in rows[third[rows] == 1]:
            edge = np.flatnonzero(lung[row])[-1 if side == "right" else 0]
            near = (np.abs(columns - edge) <= reach) & ((labels[row] == 0) | (labels[row] == label))
            regions[row, near] = REGIONS.index(Region(side, HILUM))
    if outlines.heart_credible:
        regions[outlines.heart] = REGIONS.index(Region("middle", IN_HEART))
    return regions


def _outside(labels: np.ndarray) -> np.ndarray:
    """Return the region of each cell if it is in no organ: between the lungs, or on the side of one of them."""
    columns = np.arange(labels.shape[1])
    right, left = labels == RIGHT_LUNG, labels == LEFT_LUNG
    centres = [columns[lung.any(axis=0)].mean() if lung.any() else columns.mean() for lung in (right, left)]
    on_right = np.broadcast_to(columns < (centres[0] + centres[1]) / 2, labels.shape)
    # A cell is between the lungs where its row meets the right one on the picture's left of it, and the left one on its
    # right.
    between = np.logical_or.accumulate(right, axis=1) & np.logical_or.accumulate(left[:, ::-1], axis=1)[:, ::-1]
    # What is under the dome of the diaphragm lies beside the lung's lowest part, but not between the lungs.
    lungs = right | left
    between &= ~np.logical_or.accumulate(lungs, axis=0) | np.logical_or.accumulate(lungs[::-1], axis=0)[::-1]
    sides = np.where(on_right, REGIONS.index(Region("right", OUTSIDE)), REGIONS.index(Region("left", OUTSIDE)))
    return np.where(between, REGIONS.index(Region("middle", OUTSIDE)), sides).astype(np.uint8)
