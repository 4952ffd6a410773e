"""Outlines from probabilities: labels, pieces, holes, sides, and their size on the picture."""

import numpy as np
import pytest
from lung_shapes import chest, probabilities
from scipy import ndimage

from cxr.anatomy.outlines import Outlines, heart_at, labels_at, largest_piece, outlines_from


def test_lungs_keep_what_lies_behind_the_heart_and_the_heart_is_whole():
    right, left, heart = masks = chest()
    outlines = outlines_from(probabilities(masks))
    np.testing.assert_array_equal(outlines.labels, np.select([right, left, heart], [1, 2, 3], 0))
    np.testing.assert_array_equal(outlines.heart, heart)
    assert (outlines.lungs_credible, outlines.heart_credible, outlines.reason) == (True, True, None)
    assert outlines.labels.dtype == np.uint8


def test_right_lung_is_on_the_left_of_the_picture():
    labels = outlines_from(probabilities(chest())).labels
    assert np.argwhere(labels == 1)[:, 1].max() < np.argwhere(labels == 2)[:, 1].min()


def test_cell_of_both_lungs_goes_to_the_likelier_one():
    masks = chest()
    found = probabilities(masks)
    found[40:50, 46:50, :2] = 0.6, 0.7
    labels = outlines_from(found).labels
    assert not (labels[40:50, 46:50] == 1).any()
    found[40:50, 46:50, :2] = 0.49, 0.4
    assert not np.isin(outlines_from(found).labels[40:50, 46:50], (1, 2)).any()


def test_largest_piece_is_that_of_scipy_with_its_holes_filled():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = ndimage.gaussian_filter(rng.normal(size=(40, 60)), 1.5) > 0.05
        pieces, count = ndimage.label(mask)
        sizes = ndimage.sum_labels(mask, pieces, range(1, count + 1))
        expected = ndimage.binary_fill_holes(
            pieces == 1 + np.argmax(sizes), structure=ndimage.generate_binary_structure(2, 1)
        )
        np.testing.assert_array_equal(largest_piece(mask), expected)


@pytest.mark.parametrize(("mask", "expected"), [(np.zeros((3, 4), bool), False), (np.ones((3, 4), bool), True)])
def test_largest_piece_of_nothing_and_of_everything(mask, expected):
    np.testing.assert_array_equal(largest_piece(mask), np.full((3, 4), expected))


def test_labels_at_takes_the_nearest_cell():
    labels = np.array([[1, 2], [3, 0]], np.uint8)
    outlines = Outlines(labels, labels == 3, True, True, None)
    np.testing.assert_array_equal(labels_at(outlines, 4, 6), np.kron(labels, np.ones((2, 3), np.uint8)))
    np.testing.assert_array_equal(labels_at(outlines, 2, 2), labels)
    np.testing.assert_array_equal(heart_at(outlines, 4, 2), np.kron(labels == 3, np.ones((2, 1), bool)))


def test_nothing_found_is_no_outline():
    outlines = outlines_from(np.zeros((96, 96, 3), np.float32))
    assert not outlines.labels.any()
    assert (outlines.lungs_credible, outlines.heart_credible) == (False, False)
    assert outlines.reason == "No outline: the right and the left lungs were not found."
