"""Boxes as training targets: which boxes are taken, and where they lie in a picture that was turned and shifted."""

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cxr.data.batches import affine_matrix
from cxr.data.boxes import Box, box_targets

FINDINGS = ("Mass", "Pleural_Thickening", "Infiltration")
IMAGES = ("nih/a.png", "nih/b.png", "phantom/b.png")
LABELS = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0]], np.float32)
STILL = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def coverage(boxes, row=0, matrix=STILL, size=224, grid=(7, 7)):
    targets = box_targets(boxes, IMAGES, FINDINGS, LABELS, grid)
    out = targets.empty(1)[0]
    targets.draw(out, row, matrix, size)
    return out


def test_a_box_covers_the_cells_that_it_overlaps_by_their_share():
    # Columns 2 to 4.5 of 7 and rows 1 to 3: hand-worked.
    drawn = coverage([Box("nih/a.png", "Mass", 2 / 7, 1 / 7, 2.5 / 7, 2 / 7)])
    expected = np.zeros((7, 7))
    expected[1:3, 2:4] = 1.0
    expected[1:3, 4] = 0.5

    assert_allclose(drawn[..., 0], expected, atol=1e-6)
    assert not drawn[..., 1:].any()


def test_two_boxes_of_one_finding_are_joined_and_findings_stay_apart():
    boxes = [Box("nih/a.png", "Mass", 0, 0, 1 / 7, 1 / 7), Box("nih/a.png", "Mass", 6 / 7, 6 / 7, 1 / 7, 1 / 7)]
    boxes.append(Box("nih/a.png", "Infiltrate", 3 / 7, 3 / 7, 1 / 7, 1 / 7))  # NIH's own spelling in the list of boxes
    drawn = coverage(boxes)

    assert drawn[0, 0, 0] == drawn[6, 6, 0] == drawn[3, 3, 2] == 1.0
    assert drawn[3, 3, 0] == drawn[0, 0, 2] == 0.0


@pytest.mark.parametrize(
    "box",
    [
        Box("nih/a.png", "Pleural Thickening", 0, 0, 1, 1),  # the picture is not labelled with it
        Box("b.png", "Mass", 0, 0, 1, 1),  # two pictures in folders have this name, and neither is meant
        Box("nih/c.png", "Mass", 0, 0, 1, 1),
        Box("nih/a.png", "Hernia", 0, 0, 1, 1),
    ],
)
def test_a_box_that_fits_no_labelled_picture_is_left_out(box):
    assert box_targets([box], IMAGES, FINDINGS, LABELS, (7, 7)).num_pairs == 0


def test_pairs_are_counted_once_however_many_boxes_they_have():
    boxes = [Box("nih/a.png", "Mass", 0, 0, 0.1, 0.1), Box("nih/a.png", "Mass", 0.5, 0.5, 0.1, 0.1)]
    boxes.append(Box("nih/b.png", "pleural thickening", 0, 0, 0.1, 0.1))

    assert box_targets(boxes, IMAGES, FINDINGS, LABELS, (7, 7)).num_pairs == 2


def test_a_box_moves_with_its_picture():
    """The share of light in each cell of a bright rectangle that OpenCV warps is the coverage of its box."""
    size, grid = 224, 7
    picture = np.zeros((size, size), np.float32)
    picture[64:160, 48:112] = 1.0
    box = Box("nih/a.png", "Mass", 48 / size, 64 / size, 64 / size, 96 / size)
    for angle, shift, zoom, stretch in ((0, (17, -9), 1, 1), (11, (0, 0), 1.2, 1), (-8, (10, 4), 0.9, 1.1)):
        matrix = affine_matrix(size, angle, shift, zoom, stretch)
        warped = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR)
        cells = warped.reshape(grid, size // grid, grid, size // grid).mean(axis=(1, 3))

        assert_allclose(coverage([box], matrix=matrix)[..., 0], cells, atol=0.08)
        assert coverage([box], matrix=matrix)[..., 0].sum() == pytest.approx(cells.sum(), rel=0.02)
