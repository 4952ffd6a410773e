"""Which outlines are believed: hand-worked measures, and shapes that no chest has."""

import numpy as np
import pytest
from lung_shapes import chest, ellipse

from cxr.anatomy.credibility import (
    HEART_LIMITS,
    LUNG_LIMITS,
    judge_heart,
    judge_lungs,
    measure_heart,
    measure_lungs,
)

RIGHT, LEFT, HEART = chest()
NOTHING = np.zeros_like(RIGHT)


def rectangle(top, bottom, left, right, size=100):
    mask = np.zeros((size, size), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_measures_of_two_rectangles_by_hand():
    right, left = rectangle(10, 60, 10, 35), rectangle(20, 60, 60, 90)  # 25 x 50 and 30 x 40 cells
    found = measure_lungs(right, left, aspect=2.0)
    expected = {
        "share": 0.245,
        "smaller_share": 0.12,
        "log_area_ratio": np.log(1200 / 1250),
        "slimness_right": np.log(50 / (25 * 2)),
        "slimness_left": np.log(40 / (30 * 2)),
        "solidity_right": 1.0,
        "solidity_left": 1.0,
        "distance": (74.5 - 22.0) / 80,
        "level": (39.5 - 34.5) / 50,
        "tops": 0.2,
        "bottoms": 0.0,
        "log_width_to_height": np.log(80 * 2 / 50),
        "filled_share": 2450 / 4000,
    }
    assert found == pytest.approx(expected)
    assert found.keys() == LUNG_LIMITS.keys()


def test_measures_of_a_rectangular_heart_by_hand():
    right, left, heart = rectangle(10, 60, 10, 35), rectangle(20, 60, 60, 90), rectangle(30, 55, 30, 70)
    expected = {
        "width": 40 / 80,
        "height": 25 / 50,
        "centre": (49.5 - 10) / 80,
        "level": (42 - 10) / 50,
        "bottom": (54 - 10) / 50,
        "log_width_to_height": np.log(40 * 2 / 25),
        "solidity": 1.0,
    }
    found = measure_heart(heart, right, left, aspect=2.0)
    assert found == pytest.approx(expected)
    assert found.keys() == HEART_LIMITS.keys()


def test_two_drawn_lungs_and_a_heart_are_believed():
    assert judge_lungs(RIGHT, LEFT, 1.0) is None
    assert judge_heart(HEART, RIGHT, LEFT, 1.0) is None


@pytest.mark.parametrize(("height_to_width", "believed"), [(1.1, True), (1.25, True), (1.4, True), (1.45, False)])
def test_tall_narrow_chests_are_believed(height_to_width, believed):
    """Lungs up to 1.4 times as tall as both are wide, as some of a tall, thin person's are."""
    sides = np.exp(measure_lungs(RIGHT, LEFT, 1.0)["log_width_to_height"])
    assert (judge_lungs(RIGHT, LEFT, 1 / (height_to_width * sides)) is None) == believed


@pytest.mark.parametrize(
    ("right", "left", "aspect", "reason"),
    [
        (NOTHING, NOTHING, 1, "the right and the left lungs were not found"),
        (NOTHING, LEFT, 1, "the right lung was not found"),
        (RIGHT, NOTHING, 1, "the left lung was not found"),
        (LEFT, RIGHT, 1, "the two lungs would not lie beside each other as lungs do"),
        (ellipse((0.28, 0.3), (0.04, 0.09)), ellipse((0.4, 0.3), (0.04, 0.09)), 1, "too small or too large"),
        (RIGHT, ellipse((0.7, 0.6), (0.16, 0.14)), 1, "one lung would be much larger than the other"),
        (RIGHT, LEFT, 4, "would not have the shape of a lung"),
        (np.rot90(RIGHT | LEFT) & ellipse((0.5, 0.25), (0.4, 0.2)), LEFT, 1, "No outline"),
        (RIGHT & (np.indices(RIGHT.shape).sum(0) % 3 > 0), LEFT, 1, "would not have the shape of a lung"),
    ],
)
def test_what_no_chest_has_is_no_outline(right, left, aspect, reason):
    assert reason in judge_lungs(right, left, aspect)


@pytest.mark.parametrize(
    ("heart", "reason"),
    [
        (NOTHING, "it was not found"),
        (ellipse((0.5, 0.6), (0.05, 0.17)), "its size"),
        (ellipse((0.5, 0.6), (0.2, 0.05)), "its size"),
        (ellipse((0.28, 0.6), (0.2, 0.17)), "it would not lie"),
        (ellipse((0.5, 0.25), (0.2, 0.17)), "it would not lie"),
        (HEART & ~ellipse((0.68, 0.6), (0.14, 0.07)), "the shape"),
    ],
)
def test_hearts_that_are_none(heart, reason):
    assert reason in judge_heart(heart, RIGHT, LEFT, 1.0)
