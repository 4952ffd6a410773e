"""The cardiothoracic ratio on outlines drawn by hand, and on phantoms whose geometry says it exactly."""

from dataclasses import replace

import numpy as np
import pytest

from cxr.anatomy.cardiothoracic import cardiothoracic_ratio
from cxr.anatomy.outlines import Outlines
from tools.phantom.geometry import Frame
from tools.phantom.thorax import (
    SIDES,
    dome_line,
    draw_patient,
    draw_shape,
    heart_outline,
    lateral_border,
    side_sign,
)
from tools.phantom.thorax import (
    cardiothoracic_ratio as true_ratio,
)


def chest() -> Outlines:
    """Outlines (60, 100): lungs at their widest from column 8 to 95 in row 50, a heart from column 40 to 75."""
    labels = np.zeros((60, 100), np.uint8)
    labels[10:55, 10:40], labels[50, 8:10] = 1, 1
    labels[10:55, 60:92], labels[50, 92:95] = 2, 2
    heart = np.zeros((60, 100), bool)
    heart[30:50, 45:70] = True
    heart[34, 40:45] = True  # the rightmost point lies higher than the leftmost
    heart[44, 70:75] = True
    labels[heart & (labels == 0)] = 3
    return Outlines(labels, heart, True, True, None)


def mirrored(outlines: Outlines) -> Outlines:
    labels = np.array([0, 2, 1, 3], np.uint8)[outlines.labels[:, ::-1]]
    return replace(outlines, labels=labels, heart=outlines.heart[:, ::-1])


def test_ratio_and_lines_are_those_that_were_drawn():
    found = cardiothoracic_ratio(chest(), 1000, 300)
    assert found.ratio == pytest.approx(35 / 87)
    # Rows 34 and 44: their middles are 34.5 and 44.5 of 60 rows, 5 pixels each.
    assert found.heart == pytest.approx((400, 750, 39.5 * 5))
    assert found.thorax == pytest.approx((80, 950, 50.5 * 5))
    assert (found.heart[1] - found.heart[0]) / (found.thorax[1] - found.thorax[0]) == pytest.approx(found.ratio)


def test_size_and_mirroring_do_not_change_the_ratio():
    ratio = cardiothoracic_ratio(chest(), 100, 60).ratio
    other = cardiothoracic_ratio(mirrored(chest()), 100, 60)
    assert other.ratio == pytest.approx(ratio)
    assert other.heart == pytest.approx((25, 60, 39.5))
    assert cardiothoracic_ratio(chest(), 3000, 2000).ratio == pytest.approx(ratio)


@pytest.mark.parametrize(("lungs", "heart"), [(False, False), (True, False), (False, True)])
def test_no_ratio_where_an_outline_is_not_credible(lungs, heart):
    assert cardiothoracic_ratio(replace(chest(), lungs_credible=lungs, heart_credible=heart), 100, 60) is None


@pytest.mark.parametrize("side", [0, 99])
def test_no_ratio_where_the_picture_ends_within_the_thorax(side):
    cut = chest()
    columns = slice(0, 10) if side == 0 else slice(90, 100)
    cut.labels[50, columns] = 1 if side == 0 else 2
    assert cardiothoracic_ratio(cut, 1000, 300) is None
    cut.labels[50, side] = 0  # one cell less, and the whole of it is on the picture
    assert cardiothoracic_ratio(cut, 1000, 300).ratio == pytest.approx(35 / (94 if side == 0 else 91))


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_no_ratio_without_an_organ(missing):
    whole = chest()
    labels, heart = np.where(whole.labels == missing, 0, whole.labels), whole.heart & (missing != 3)
    assert cardiothoracic_ratio(replace(whole, labels=labels, heart=heart), 100, 60) is None


def drawn_phantom(seed: int, size: int) -> tuple[Outlines, float]:
    """Outlines of one phantom, by its geometry in millimetres, and its true ratio."""
    rng = np.random.default_rng(seed)
    shape = draw_shape(rng, draw_patient(rng))
    frame = Frame(size, 360 / size, -60.0)
    x, _ = np.broadcast_arrays(frame.x, frame.y)
    labels = np.zeros((size, size), np.uint8)
    for label, side in enumerate(SIDES, 1):
        distance = x * side_sign(side)
        above = frame.y < dome_line(shape, side, frame.x)
        labels[(frame.y > 0) & above & (distance > 20) & (distance < lateral_border(shape, frame.y))] = label
    heart = frame.mask(heart_outline(shape)) > 0.5
    labels[heart & (labels == 0)] = 3
    return Outlines(labels, heart, True, True, None), true_ratio(shape)


def test_ratio_is_the_phantoms():
    errors = []
    for seed in range(20):
        outlines, truth = drawn_phantom(seed, 256)
        errors.append(cardiothoracic_ratio(outlines, 256, 256).ratio - truth)
    assert np.abs(errors).mean() < 0.01
