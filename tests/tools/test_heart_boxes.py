"""Hearts known by boxes: what is sure for every margin that a reader may have left, and what stays unclear."""

import numpy as np
import pytest
from lung_shapes import chest

from cxr.data.boxes import Box
from tools.anatomy import heart_boxes
from tools.anatomy.examples import HEART, HEART_UNCLEAR, LEFT, NO_HEART_KNOWN, RIGHT, Examples
from tools.anatomy.heart_boxes import MARGINS, boxed_hearts, heart_in_box, mean_heart, without_hearts
from tools.anatomy.randomisation import UNKNOWN, randomise

SIZE = 96
RIGHT_LUNG, LEFT_LUNG, _ = chest(SIZE)
BOX = Box("a.png", "Cardiomegaly", 0.25, 0.4, 0.5, 0.4)
FULL = np.ones((heart_boxes.SHAPE_CELLS, heart_boxes.SHAPE_CELLS), np.float32)  # a heart that fills its box


def examples(*names, flags=0):
    known = (RIGHT * RIGHT_LUNG + LEFT * LEFT_LUNG + flags).astype(np.uint8)
    return Examples(np.zeros((len(names), SIZE, SIZE), np.uint8), np.stack([known] * len(names)), np.ones(len(names)),
                    list(names))  # fmt: skip


def test_mean_heart_of_two_shapes_by_hand():
    hearts = np.zeros((2, SIZE, SIZE), np.uint8)
    hearts[0, 16:80, 8:72] = HEART  # a square fills its bounding box wherever it lies
    hearts[1, 16:80, 8:72] = HEART
    hearts[1, 16:48, 8:40] = RIGHT  # the other lacks a quarter
    found = mean_heart(Examples(hearts, hearts, np.ones(2), ["a", "b"]))
    expected = np.ones((64, 64))
    expected[:32, :32] = 0.5
    np.testing.assert_allclose(found, expected)


def test_heart_that_fills_its_box_is_sure_inside_every_margin_and_outside_none():
    """The edges' shares are uniform: halfway through a margin a cell is heart in half of the draws."""
    found = heart_in_box(FULL, BOX, SIZE)
    edges = {"left": (BOX.left, 1), "right": (BOX.left + BOX.width, -1)}
    row = int((BOX.top + BOX.height / 2) * SIZE)
    for edge, (at, inwards) in edges.items():
        low, high = (SIZE * (at + inwards * share * BOX.width) for share in MARGINS[edge])
        outside, inside = int(low - 2 * inwards), int(high + 2 * inwards)
        assert found[row, outside] == 0
        assert found[row, inside] == pytest.approx(1)
        assert found[row, int((low + high) / 2)] == pytest.approx(0.5, abs=0.3)
    column = SIZE // 2
    assert found[int((BOX.top + MARGINS["top"][0] * BOX.height) * SIZE) - 2, column] == 0
    assert found[int((BOX.top + BOX.height) * SIZE) + 2, column] == 0
    np.testing.assert_array_equal(found, heart_in_box(FULL, BOX, SIZE))


def test_boxed_hearts_keep_the_lungs_and_replace_the_guessed_heart():
    boxes = [Box("b.png", "Mass", 0.1, 0.1, 0.1, 0.1), BOX, Box("c.png", "Cardiomegaly", 0.2, 0.4, 0.5, 0.4)]
    found = boxed_hearts(examples("a.png", "b.png", flags=HEART), boxes, FULL)
    assert found.names == ["a.png"]
    flags = found.flags[0]
    np.testing.assert_array_equal(flags & RIGHT > 0, RIGHT_LUNG)
    np.testing.assert_array_equal(flags & LEFT > 0, LEFT_LUNG)
    share = heart_in_box(FULL, BOX, SIZE)
    np.testing.assert_array_equal(flags & HEART > 0, share >= 0.95)
    np.testing.assert_array_equal(flags & HEART_UNCLEAR > 0, (share > 0.02) & (share < 0.95))
    assert not (flags & NO_HEART_KNOWN).any()
    with pytest.raises(ValueError, match="No box of Cardiomegaly"):
        boxed_hearts(examples("b.png"), boxes, FULL)


def test_hearts_are_forgotten_and_lungs_are_not():
    flags = without_hearts(examples("a.png", flags=HEART)).flags[0]
    np.testing.assert_array_equal(flags, RIGHT * RIGHT_LUNG + LEFT * LEFT_LUNG + NO_HEART_KNOWN)


def test_unclear_cells_are_left_out_of_the_target_wherever_they_are_moved():
    flags = np.zeros((SIZE, SIZE), np.uint8)
    flags[24:72, 24:72] = HEART_UNCLEAR
    flags[36:60, 36:60] = HEART
    for seed in range(5):
        _, target = randomise(np.full((SIZE, SIZE), 90, np.uint8), flags, np.random.default_rng(seed))
        heart = target[..., 2]
        unknown, sure = heart == UNKNOWN, heart > 0.99
        assert sure.any() and unknown.any()
        grown = np.pad(sure, 1)
        beside = grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]
        assert (unknown | sure)[beside].all()  # a sure cell never meets a cell that would be outside
        assert target[..., :2].max() == 0
