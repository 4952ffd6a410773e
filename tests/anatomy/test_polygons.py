"""Polygons against the masks that they were made from, filled again by OpenCV."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxr.anatomy.outlines import Outlines
from cxr.anatomy.polygons import polygons_of


def ellipses(size: int) -> Outlines:
    rows, columns = (np.mgrid[:size, :size] + 0.5) / size
    right, left, heart = (
        ((columns - x) / a) ** 2 + ((rows - y) / b) ** 2 < 1
        for x, y, a, b in [(0.28, 0.5, 0.16, 0.3), (0.72, 0.5, 0.16, 0.3), (0.53, 0.65, 0.15, 0.13)]
    )
    labels = np.select([right, left, heart], [1, 2, 3]).astype(np.uint8)
    return Outlines(labels, heart, True, True, None)


def of_labels(labels: np.ndarray) -> Outlines:
    return Outlines(labels, labels == 3, True, True, None)


def filled(polygons: list[np.ndarray], size: int) -> np.ndarray:
    canvas = np.zeros((size, size), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.rint(polygon * size - 0.5).astype(np.int32)], 1)
    return canvas.astype(bool)


def test_filled_polygons_are_the_labels_again():
    outlines = ellipses(128)
    masks = outlines.labels == 1, outlines.labels == 2, outlines.heart
    for mask, polygons in zip(masks, polygons_of(outlines).values(), strict=True):
        assert len(polygons) == 1
        assert len(polygons[0]) < 80
        drawn, mask = filled(polygons, 512), cv2.resize(mask.astype(np.uint8), (512, 512)) > 0
        assert 2 * (drawn & mask).sum() / (drawn.sum() + mask.sum()) > 0.97


def test_an_outline_at_the_border_goes_along_it():
    labels = np.zeros((40, 60), np.uint8)
    labels[:, :20] = 1
    (polygon,) = polygons_of(of_labels(labels))["right_lung"]
    assert polygon.min(axis=0) == pytest.approx([0, 0], abs=0.02)
    assert polygon.max(axis=0) == pytest.approx([1 / 3, 1], abs=0.02)


def test_pieces_are_sorted_and_specks_left_out():
    labels = np.zeros((100, 100), np.uint8)
    labels[60:64, 10:14], labels[10:40, 10:30], labels[90, 90] = 2, 2, 2
    first, second = polygons_of(of_labels(labels))["left_lung"]
    assert np.ptp(first[:, 0]) > np.ptp(second[:, 0])


@pytest.mark.parametrize(
    ("lungs", "heart", "shown"),
    [
        (True, True, ["right_lung", "left_lung", "heart"]),
        (True, False, ["right_lung", "left_lung"]),
        (False, False, []),
    ],
)
def test_only_what_is_credible_is_drawn(lungs, heart, shown):
    found = polygons_of(replace(ellipses(64), lungs_credible=lungs, heart_credible=heart))
    assert list(found) == ["right_lung", "left_lung", "heart"]
    assert [organ for organ, polygons in found.items() if polygons] == shown
