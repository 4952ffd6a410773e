"""Side, zone and share inside, on outlines drawn by hand whose regions are known; enlarged maps are the oracle."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import zoom

from cxr.anatomy.outlines import Outlines
from cxr.heatmaps.places import REGIONS, places_of, region_map, share_inside


def chest() -> Outlines:
    """Outlines (100, 100): lungs of 60 rows and 30 columns, and a heart between and over their lower halves."""
    labels = np.zeros((100, 100), np.uint8)
    labels[20:80, 10:40] = 1
    labels[20:80, 60:90] = 2
    heart = np.zeros((100, 100), bool)
    heart[50:80, 38:70] = True
    labels[heart & (labels == 0)] = 3
    return Outlines(labels, heart, True, True, None)


CHEST = chest()


def place_of(heatmap, outlines):
    return places_of(heatmap[np.newaxis], outlines)[0]


def dot(row: int, column: int, size: int = 100) -> np.ndarray:
    heatmap = np.zeros((size, size), np.float32)
    heatmap[row, column] = 2.0
    return heatmap


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        (20, 10, "right upper zone"),
        (39, 39, "right upper zone"),
        (40, 10, "right middle zone"),
        (59, 33, "right hilum"),  # there the heart begins at column 38
        (59, 32, "right middle zone"),
        (60, 10, "right lower zone"),
        (79, 37, "right lower zone"),
        (40, 33, "right hilum"),  # the inner edge is column 39, a fifth of the width 6 columns
        (45, 45, "right hilum"),
        (45, 54, "left hilum"),
        (45, 66, "left hilum"),
        (45, 67, "left middle zone"),
        (79, 89, "left lower zone"),
        (20, 60, "left upper zone"),
        (55, 40, "heart"),
        (79, 69, "heart"),
        (30, 50, "between the lungs"),
        (5, 5, "outside the lungs on the right"),
        (90, 70, "outside the lungs on the left"),
        (50, 9, "outside the lungs on the right"),
        (50, 90, "outside the lungs on the left"),
    ],
)
def test_a_point_lies_in_the_region_that_was_drawn(row, column, words):
    assert REGIONS[region_map(CHEST)[row, column]].words == words
    assert place_of(dot(row, column), CHEST).peak.words == words


def test_what_is_under_the_dome_of_the_diaphragm_is_not_between_the_lungs():
    labels = CHEST.labels.copy()
    labels[80:90, 10:15], labels[80:90, 85:90] = 1, 2  # the lungs reach deeper at the chest wall
    regions = region_map(replace(CHEST, labels=labels))
    assert [REGIONS[regions[85, column]].words for column in (30, 50, 70)] == [
        "outside the lungs on the right",
        "between the lungs",
        "outside the lungs on the left",
    ]


def test_peak_and_largest_part_can_differ():
    heatmap = dot(70, 80)  # left lower zone
    heatmap[22:38, 12:28] = 1.0  # right upper zone
    place = place_of(heatmap, CHEST)
    assert (place.peak.words, place.largest.words) == ("left lower zone", "right upper zone")
    assert (place.side, place.zone) == ("right", "upper zone")
    # As wide as the grid, cells are pixels: 256 of 258 units of heat.
    assert place.largest_share == pytest.approx(256 / 258)
    assert place.share_inside == pytest.approx(1.0)


def test_shares_are_those_of_the_map_as_it_is_drawn():
    heatmaps = np.random.default_rng(5).random((3, 7, 9)) ** 4
    regions = region_map(CHEST)
    for heatmap, place in zip(heatmaps, places_of(heatmaps, CHEST), strict=True):
        # Order 1 between cell centres, the border cells going on to the border.
        drawn = zoom(heatmap, (100 / 7, 100 / 9), order=1, mode="nearest", grid_mode=True)
        shares = [drawn[regions == k].sum() / drawn.sum() for k in range(len(REGIONS))]
        assert place.largest == REGIONS[int(np.argmax(shares))]
        assert place.largest_share == pytest.approx(max(shares), rel=1e-4)
        assert place.share_inside == pytest.approx(drawn[CHEST.labels > 0].sum() / drawn.sum(), rel=1e-4)


def test_even_heat_lies_inside_as_far_as_the_mask_reaches():
    mask = np.zeros((64, 64), bool)
    mask[16:48, 8:40] = True
    assert share_inside(np.ones((64, 64)), mask) == pytest.approx(mask.mean())
    assert np.isnan(share_inside(np.zeros((64, 64)), mask))


def test_a_mirrored_picture_has_its_places_on_the_other_side():
    heatmaps = np.random.default_rng(6).random((20, 7, 7)) ** 8
    swapped = replace(CHEST, labels=np.array([0, 2, 1, 3], np.uint8)[CHEST.labels[:, ::-1]], heart=CHEST.heart[:, ::-1])
    other = {"right": "left", "left": "right", "middle": "middle"}
    there = places_of(heatmaps[:, :, ::-1], swapped)
    for place, mirrored in zip(places_of(heatmaps, CHEST), there, strict=True):
        assert (mirrored.peak.side, mirrored.peak.zone) == (other[place.peak.side], place.peak.zone)
        assert (mirrored.largest.side, mirrored.largest.zone) == (other[place.largest.side], place.largest.zone)
        assert mirrored.share_inside == pytest.approx(place.share_inside)


def test_no_place_without_heat_or_without_credible_lungs():
    lit, dark = dot(30, 30), np.zeros((100, 100))
    assert places_of(np.stack([dark, lit]), CHEST)[0] is None
    assert place_of(dark, CHEST) is None
    assert place_of(lit, replace(CHEST, lungs_credible=False)) is None


def test_a_heart_that_is_not_credible_is_not_named():
    place = place_of(dot(70, 50), replace(CHEST, heart_credible=False))
    assert place.peak.words == "between the lungs"


def test_heat_in_a_heart_that_is_not_credible_is_not_inside():
    heatmap = dot(70, 50)  # in the heart alone
    heatmap[30, 30] = 1.0  # in the right lung
    assert place_of(heatmap, CHEST).share_inside == pytest.approx(1.0)
    assert place_of(heatmap, replace(CHEST, heart_credible=False)).share_inside == pytest.approx(1 / 3)


def test_a_single_lung_row_and_one_cell_are_places_too():
    labels = np.zeros((10, 10), np.uint8)
    labels[4, 1:4], labels[4, 6:9] = 1, 2
    place = place_of(np.ones((1, 1)), Outlines(labels, np.zeros((10, 10), bool), True, False, "No heart."))
    assert place.share_inside == pytest.approx(0.06)
    assert place.zone == "outside the lungs"
