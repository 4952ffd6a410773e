"""Boxes of heatmaps: worked by hand in the picture's pixels, against SciPy's labels, and for any map."""

import cv2
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from cxr.heatmaps.boxes_from_heatmaps import GRID, HeatBox, boxes_from_heatmap, in_pixels

CLOSE = 1.01 / GRID  # an edge lies on the grid


def edges(box):
    return box.left, box.top, box.left + box.width, box.top + box.height


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_one_hot_cell_falls_off_linearly_to_its_neighbours(share):
    """Beside a lone hot cell the map falls to 0 within a cell: it reaches the share (1 - share) cells off."""
    heatmap = np.zeros((8, 4))
    heatmap[2, 1] = 3.0
    (box,) = boxes_from_heatmap(heatmap, share)
    # On the axes through the centre, where the box's edges are: centre (1.5 / 4, 2.5 / 8).
    expected = (
        *((1.5 - (1 - share)) / 4, (2.5 - (1 - share)) / 8),
        *((1.5 + (1 - share)) / 4, (2.5 + (1 - share)) / 8),
    )
    assert np.abs(np.array(edges(box)) - expected).max() < CLOSE
    assert box.strength == 1


def test_a_block_in_the_corner_reaches_the_border_of_the_picture():
    """Half of the peak is reached half-way between a hot and a cold cell's centre: on the border between the two."""
    heatmap = np.zeros((8, 8))
    heatmap[5:, :2] = 1.0
    (box,) = boxes_from_heatmap(heatmap, 0.5)
    assert edges(box) == (0.0, 0.625, 0.25, 1.0)
    assert in_pixels(box, 2000, 800) == (0, 500, 500, 300)  # a picture that is no square
    assert in_pixels(box, 1024, 1024) == (0, 640, 256, 384)
    assert in_pixels(box, 3, 1) == (0, 0, 1, 1)  # never outside, never empty


def test_two_regions_are_two_boxes_the_strongest_first():
    heatmap = np.zeros((8, 8))
    heatmap[1, 1], heatmap[6, 5] = 0.8, 1.0
    first, second = boxes_from_heatmap(heatmap, 0.5)
    assert (first.strength, second.strength) == (1, pytest.approx(0.8, abs=0.02))
    assert first.left > 0.5 > second.left + second.width
    # At 0.8 of the peak a region begins where 0.8 * (1 - d) = 0.5: nearer to its centre than the stronger one's.
    assert second.width == pytest.approx(2 * (1 - 0.5 / 0.8) / 8, abs=2 * CLOSE)
    (alone,) = boxes_from_heatmap(heatmap, 0.9)
    assert alone.left > 0.5


def test_a_map_without_evidence_has_no_box_and_an_even_one_fills_the_picture():
    assert boxes_from_heatmap(np.zeros((7, 7), np.float32)) == []
    assert boxes_from_heatmap(np.full((7, 7), 0.2, np.float32)) == [HeatBox(0.0, 0.0, 1.0, 1.0, 1.0)]


MAPS = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    elements=st.floats(0, 5, width=32).map(lambda value: 0.0 if value < 0.01 else value),
)


@settings(deadline=None, max_examples=40)
@given(heatmap=MAPS, share=st.sampled_from([0.2, 0.55, 0.9]))
def test_boxes_are_those_of_the_regions_that_scipy_finds(heatmap, share):
    boxes = boxes_from_heatmap(heatmap, share)
    if not heatmap.any():
        assert boxes == []
        return
    enlarged = cv2.resize(heatmap, (GRID, GRID), interpolation=cv2.INTER_LINEAR)
    labelled, count = ndimage.label(enlarged >= share * enlarged.max())  # neighbours share a side
    expected = {
        (across.start / GRID, down.start / GRID, across.stop / GRID, down.stop / GRID)
        for down, across in ndimage.find_objects(labelled)
    }
    assert len(boxes) == count
    assert {edges(box) for box in boxes} == expected
    assert all(min(box.left, box.top) >= 0 and min(box.width, box.height) > 0 for box in boxes)
    assert all(share <= box.strength + 1e-6 and box.strength <= 1 for box in boxes)
    assert [box.strength for box in boxes] == sorted((box.strength for box in boxes), reverse=True)


@settings(deadline=None, max_examples=25)
@given(heatmap=MAPS, size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)))
def test_pixels_lie_in_the_picture_whatever_its_size(heatmap, size):
    for box in boxes_from_heatmap(heatmap):
        x, y, w, h = in_pixels(box, *size)
        assert min(x, y) >= 0 and min(w, h) >= 1
        assert x + w <= size[0] and y + h <= size[1]
        assert abs(x - box.left * size[0]) <= 1 and abs(y - box.top * size[1]) <= 1
