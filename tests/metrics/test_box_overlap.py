"""Found boxes against drawn ones: areas worked by hand, a fine grid for any boxes, and the table of hit rates."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.testing import assert_allclose

from cxr.data.boxes import Box
from cxr.heatmaps.boxes_from_heatmaps import boxes_from_heatmap
from cxr.metrics.box_overlap import OVERLAP_THRESHOLDS, BoxCase, overlap, score_boxes
from cxr.metrics.localisation import localise


def rectangle(left, top, width, height):
    return Box("a.png", "Mass", left, top, width, height)


WHOLE, LEFT, RIGHT = rectangle(0, 0, 1, 1), rectangle(0, 0, 0.5, 1), rectangle(0.5, 0, 0.5, 1)
TOP = rectangle(0, 0, 1, 0.5)


@pytest.mark.parametrize(
    ("found", "truth", "iou", "iobb"),
    [
        ([LEFT], [LEFT], 1, 1),
        ([LEFT], [RIGHT], 0, 0),  # they share an edge
        ([LEFT], [TOP], 0.25 / 0.75, 0.5),
        ([WHOLE], [LEFT], 0.5, 0.5),
        ([LEFT], [WHOLE], 0.5, 1),
        ([LEFT, LEFT], [TOP], 0.25 / 0.75, 0.5),  # no area counts twice
        ([LEFT, RIGHT], [WHOLE], 1, 1),
        ([LEFT, TOP], [WHOLE], 0.75, 1),
        ([rectangle(0.1, 0.1, 0.2, 0.2)], [rectangle(0.2, 0.2, 0.2, 0.2), rectangle(0.8, 0.8, 0.1, 0.1)], 1 / 8, 1 / 4),
        ([], [LEFT], 0, 0),
    ],
)
def test_overlap_worked_by_hand(found, truth, iou, iobb):
    assert_allclose(overlap(found, truth), (iou, iobb), atol=1e-12)


GRID = 32
SPANS = st.tuples(st.integers(0, GRID - 1), st.integers(1, GRID)).map(
    lambda span: (span[0], min(span[1], GRID - span[0]))
)
BOXES = st.lists(
    st.tuples(SPANS, SPANS).map(lambda s: rectangle(s[0][0] / GRID, s[1][0] / GRID, s[0][1] / GRID, s[1][1] / GRID)),
    min_size=1,
    max_size=4,
)


def painted(boxes):
    mask = np.zeros((GRID, GRID), bool)
    for box in boxes:
        left, top, width, height = (round(value * GRID) for value in (box.left, box.top, box.width, box.height))
        mask[top : top + height, left : left + width] = True
    return mask


@settings(deadline=None, max_examples=60)
@given(found=BOXES, truth=BOXES)
def test_overlap_is_that_of_painted_pixels(found, truth):
    one, other = painted(found), painted(truth)
    iou, iobb = overlap(found, truth)
    assert iou == pytest.approx((one & other).sum() / (one | other).sum(), abs=1e-12)
    assert iobb == pytest.approx((one & other).sum() / one.sum(), abs=1e-12)
    assert iou <= iobb + 1e-12
    assert iou == pytest.approx(overlap(truth, found)[0], abs=1e-12)


def test_scores_worked_by_hand():
    """Mass: IoU 1 and 1/3, IoBB 1 and 1/2; Effusion: nothing found."""
    cases = [
        BoxCase("Mass", "p1", [LEFT], [LEFT], [[LEFT], [RIGHT]]),
        BoxCase("Mass", "p2", [TOP], [LEFT], [[], []]),
        BoxCase("Effusion", "p3", [TOP], [], [[WHOLE], [WHOLE]]),
    ]
    result = score_boxes(cases, ["Effusion", "Hernia", "Mass"])
    effusion, mass = result.findings
    assert (effusion.finding, mass.finding, result.overall.num_cases) == ("Effusion", "Mass", 3)
    assert (mass.num_cases, mass.boxes_per_case, effusion.boxes_per_case) == (2, 1, 0)
    assert mass.iou.value == pytest.approx((1 + 1 / 3) / 2)
    assert mass.iobb.value == pytest.approx(0.75)
    assert (mass.random_iou, effusion.random_iou, effusion.random_iobb) == (0.25, 0.5, 0.5)
    assert result.thresholds == OVERLAP_THRESHOLDS == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert [hit.value for hit in mass.iou_hits] == [1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    assert [hit.value for hit in mass.iobb_hits] == [1, 1, 1, 1, 1, 0.5, 0.5]
    assert mass.random_iou_hits == (0.25,) * 7
    assert effusion.random_iou_hits == (1, 1, 1, 1, 1, 0, 0)
    assert [hit.value for hit in result.overall.iou_hits] == pytest.approx([2 / 3] * 3 + [1 / 3] * 4)
    assert np.isnan([mass.iou.low, result.overall.iou.high]).all()  # of three patients


def test_interval_is_that_of_resampled_patients():
    """Half of many patients hit wholly, half not at all: the mean of n draws varies by 0.5 / sqrt(n)."""
    num_patients = 400
    cases = [
        BoxCase("Mass", f"p{number}", [LEFT], [LEFT if number % 2 else RIGHT], [[LEFT]])
        for number in range(num_patients)
        for _ in range(3)  # copies of one patient's picture say nothing new
    ]
    overall = score_boxes(cases, ["Mass"]).overall
    half_width = 1.96 * 0.5 / np.sqrt(num_patients)
    for estimate in (overall.iou, overall.iobb, overall.iou_hits[3]):
        assert estimate.value == 0.5
        assert_allclose([estimate.low, estimate.high], [0.5 - half_width, 0.5 + half_width], atol=0.012)


def test_no_cases_are_undefined():
    result = score_boxes([], ["Mass"])
    assert result.findings == ()
    assert result.overall.num_cases == 0
    assert np.isnan([result.overall.iou.value, result.overall.random_iou, result.overall.boxes_per_case]).all()
    assert np.isnan([hit.value for hit in result.overall.iou_hits]).all()


def test_localise_scores_the_boxes_of_its_maps_beside_those_of_random_maps():
    heatmaps = np.zeros((2, 1, 8, 8), np.float32)
    heatmaps[0, 0, 4:, 4:] = 1.0
    images, boxes = ["a.png", "b.png"], [rectangle(0.5, 0.5, 0.5, 0.5), Box("b.png", "Mass", 0, 0, 0.5, 1)]
    plain = localise(heatmaps, images, ["Mass"], boxes)
    assert plain.boxes is None
    half = lambda heatmap: boxes_from_heatmap(heatmap, 0.5)  # noqa: E731 - half of the peak lies on the cells' border
    result = localise(heatmaps, images, ["Mass"], boxes, patients=["p1", "p1"], find_boxes=half)
    assert (result.overall, result.num_blank) == (plain.overall, 1)
    assert result.boxes.overall.iou.value == 0.5  # the first wholly; the second has no evidence
    assert 0.05 < result.boxes.overall.random_iou < 0.35
