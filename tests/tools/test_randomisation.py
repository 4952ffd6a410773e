"""The randomisation test on a network whose head is known to be right: destroying the head must destroy the maps."""

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchmarks.bench_randomisation import (
    RANDOMISATIONS,
    match_boxes,
    rank_correlation,
    score_randomised,
    shuffle_findings,
)
from cxr.data.boxes import Box

FINDINGS = ("Mass", "Nodule", "Edema", "Hernia")
CELLS = 8  # the network's cells per side; each is 4 x 4 pixels
STRIPES = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, -1, 1], [1, -1, 1, -1]])  # orthogonal
PATTERNS = [np.outer(STRIPES[one], STRIPES[two]) for one, two in ((0, 1), (1, 0), (2, 2), (3, 3))]


def planted_pictures(num_images=12):
    """Grey pictures with the pattern of every finding in one cell each, and the boxes around these cells."""
    random = np.random.default_rng(0)
    pictures, boxes = np.full((num_images, 4 * CELLS, 4 * CELLS, 1), 128, np.float32), []
    for image in range(num_images):
        for finding, place in enumerate(random.permutation(CELLS**2)[: len(FINDINGS)]):
            row, column = divmod(int(place), CELLS)
            pictures[image, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4, 0] += 100 * PATTERNS[finding]
            boxes.append(Box(f"{image}.png", FINDINGS[finding], column / CELLS, row / CELLS, 1 / CELLS, 1 / CELLS))
    return pictures, boxes


def planted_network():
    """One filter per pattern, so that channel k is warm where finding k is; the head takes channel k for finding k."""
    radiograph = keras.Input((4 * CELLS, 4 * CELLS, 1))
    maps = keras.layers.Conv2D(len(PATTERNS), 4, strides=4, use_bias=False, name="conv")(radiograph)
    maps = keras.layers.Activation("relu", name="relu")(maps)
    network = keras.Model(radiograph, maps)
    network.get_layer("conv").set_weights([np.stack(PATTERNS, axis=-1)[:, :, np.newaxis] / 1600.0])
    return network


@pytest.fixture(scope="module")
def scores():
    pictures, boxes = planted_pictures()
    cases = match_boxes(boxes, [f"{image}.png" for image in range(len(pictures))], FINDINGS)
    assert len(cases) == len(boxes) == 48
    features = np.asarray(planted_network()(pictures))
    return score_randomised(features, np.eye(len(FINDINGS)) - 0.1, cases, num_heads=30)


def test_maps_of_the_trained_head_point_at_the_findings(scores):
    pointing, _, correlation = scores["trained head"][0]
    assert pointing == 1
    assert_allclose(correlation, 1)


@pytest.mark.parametrize("name", RANDOMISATIONS)
def test_maps_of_a_destroyed_head_do_not(scores, name):
    """Every picture has four warm places, one of which is right: a head that knows nothing hits one time in four."""
    pointing, iobb, correlation = scores[name].mean(axis=0)
    assert pointing < 0.4
    assert iobb < 0.5 * scores["trained head"][0, 1]
    assert correlation < 0.6
    if name == "findings shuffled":
        assert scores[name][:, 0].max() == 0  # the peak is always in the box of another finding


def test_shuffled_findings_keep_all_columns_and_none_in_its_place():
    kernel = np.arange(28.0).reshape(2, 14)
    for seed in range(20):
        shuffled = shuffle_findings(kernel, np.random.default_rng(seed))
        assert_array_equal(np.sort(shuffled, axis=1), kernel)
        assert (shuffled != kernel).all()


def test_rank_correlation_hand_worked():
    assert rank_correlation(np.array([[0, 1], [2, 9]]), np.array([[0, 10], [20, 21]])) == pytest.approx(1)
    assert rank_correlation(np.array([[0, 1], [2, 9]]), np.array([[9, 2], [1, 0]])) == pytest.approx(-1)
    assert rank_correlation(np.array([[1, 2], [3, 4]]), np.array([[1, 2], [4, 3]])) == pytest.approx(0.8)  # 1 - 6*2/60
    assert rank_correlation(np.zeros((2, 2)), np.array([[1, 2], [4, 3]])) == 0
