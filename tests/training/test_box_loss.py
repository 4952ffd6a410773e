"""The box loss against a table worked in NumPy, and what a training with it does to a small network's evidence."""

import dataclasses

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose

from cxr.training.optimisation import box_loss, positive_weights


def by_hand(coverage, cells):
    total = 0.0
    for image in range(len(cells)):
        for finding in range(cells.shape[-1]):
            if coverage[image, ..., finding].max() > 0:
                weights = np.exp(cells[image, ..., finding])
                total -= np.log((weights / weights.sum() * coverage[image, ..., finding]).sum())
    return total / len(cells)


def test_box_loss_is_minus_the_log_of_the_share_inside_the_box():
    rng = np.random.default_rng(0)
    cells = rng.normal(0, 3, (4, 5, 6, 3)).astype(np.float32)
    coverage = np.zeros((4, 5, 6, 3), np.float32)
    coverage[0, 1:3, 2:4, 0] = 1.0
    coverage[0, 0, 0, 2] = 0.25
    coverage[2, :, 5, 1] = 0.5

    assert float(box_loss(coverage, cells)) == pytest.approx(by_hand(coverage, cells), rel=1e-5)


def test_box_loss_is_zero_without_boxes_and_for_a_box_around_everything():
    cells = np.random.default_rng(1).normal(size=(2, 3, 3, 2)).astype(np.float32)

    assert float(box_loss(np.zeros_like(cells), cells)) == 0.0
    assert float(box_loss(np.ones_like(cells), cells)) == pytest.approx(0.0, abs=1e-6)


def test_box_loss_does_not_see_the_bias_and_stays_finite_where_all_evidence_is_outside():
    cells = np.zeros((1, 4, 4, 1), np.float32)
    cells[0, 3, 3, 0] = 200.0
    coverage = np.zeros_like(cells)
    coverage[0, 0, 0, 0] = 1.0

    far = float(box_loss(coverage, cells))
    assert np.isfinite(far)
    assert far > 10
    assert float(box_loss(coverage, cells + 7.5)) == pytest.approx(far, rel=1e-5)


def test_positive_weights_count_a_soft_label_for_both_sides():
    labels = np.array([[0.25], [0.75], [np.nan], [1.0]], np.float32)

    assert_allclose(positive_weights(labels), [1.0 / 2.0])  # negatives 0.75 + 0.25, positives 0.25 + 0.75 + 1


def test_positive_weights_of_whole_labels_are_their_ratio():
    labels = np.array([[0], [0], [0], [1], [np.nan]], np.float32)

    assert_allclose(positive_weights(labels), [3.0])


def test_a_training_with_the_box_loss_moves_the_evidence_into_the_boxes(tmp_path):
    """A striped and a plain square tell the finding; only the box says that it is the striped one that counts."""
    from small_network import build_small_network

    from cxr.data.boxes import Box, box_targets
    from cxr.data.cache import CachedSplit
    from cxr.data.labels import Split
    from cxr.training.loop import fit
    from cxr.training.recipe import Recipe
    from cxr.training.run_control import StopRequest

    rng = np.random.default_rng(0)
    labels = (np.arange(48) % 2).astype(np.float32)[:, None]
    pictures = rng.integers(0, 20, (48, 33, 33, 1)).astype(np.uint8)
    pictures[labels[:, 0] == 1, 12:20:2, 3:11] += 120  # stripes
    pictures[labels[:, 0] == 1, 12:20, 22:30] += 120
    names = tuple(f"{k}.png" for k in range(48))
    split = Split("train", names, names, labels, ("Mass",))
    train, val = (
        CachedSplit(split, pictures, "train"),
        CachedSplit(dataclasses.replace(split, name="val"), pictures, "val"),
    )
    boxes = [Box(name, "Mass", 3 / 33, 12 / 33, 8 / 33, 8 / 33) for name in names]

    shares = {}
    for weight in (0.0, 1.0):
        keras.utils.set_random_seed(0)
        network = build_small_network(("Mass",), 33)
        grid = network.get_layer("relu").output.shape[1:3]
        targets = box_targets(boxes, names, ("Mass",), labels) if weight else None
        recipe = Recipe(epochs=40, batch_size=8, learning_rate=0.01, box_weight=weight)
        with StopRequest() as stop:
            history = fit(network, train, val, recipe, tmp_path / str(weight), stop, boxes=targets)
        features = keras.Model(network.input, network.get_layer("relu").output).predict(pictures, verbose=0)
        evidence = np.maximum(features @ network.get_layer("logits").get_weights()[0], 0)[labels[:, 0] == 1, ..., 0]
        left = evidence[:, :, : grid[1] // 2].sum() / evidence.sum()
        shares[weight] = float(left)
        assert history[-1]["val_mean_auroc"] > 0.9

    assert shares[0.0] < 0.65  # the plain square speaks for the finding too
    assert shares[1.0] > shares[0.0] + 0.15
