"""Losses, positive weights and the optimiser against closed forms and Keras."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from small_training import NAN

from cxr.training.optimisation import (
    CLIP_NORM,
    MAX_POSITIVE_WEIGHT,
    feature_loss,
    make_loss,
    make_optimiser,
    positive_weights,
)

ROOT = Path(__file__).resolve().parents[2]

LABELS = np.array([[1, 0, NAN], [0, 1, 0], [1, NAN, 0], [0, 0, 0]], np.float32)


LOGITS = np.array([[2.0, -1.0, 0.3], [-0.5, 4.0, -2.0], [100.0, 0.0, -100.0], [0.0, 1.0, 2.0]], np.float32)


def test_loss_is_the_mean_cross_entropy_of_the_known_labels():
    terms = [
        -math.log(p if label else 1 - p)
        for label, p in zip(LABELS.ravel(), 1 / (1 + np.exp(-LOGITS.ravel().astype(float))), strict=True)
        if not math.isnan(label) and abs(p - 0.5) < 0.4999  # the two saturated cells are right and cost nothing
    ]
    loss = float(make_loss()(keras.ops.convert_to_tensor(LABELS), keras.ops.convert_to_tensor(LOGITS)))
    assert loss == pytest.approx(sum(terms) / 10, rel=1e-5)


def test_loss_equals_keras_binary_crossentropy_where_nothing_is_blank():
    labels = np.nan_to_num(LABELS)
    loss = float(make_loss()(keras.ops.convert_to_tensor(labels), keras.ops.convert_to_tensor(LOGITS)))
    expected = float(keras.losses.BinaryCrossentropy(from_logits=True)(labels, LOGITS))
    assert loss == pytest.approx(expected, rel=1e-6)


def test_loss_of_blank_labels_only_is_zero():
    blank = keras.ops.full((2, 3), NAN)
    assert float(make_loss()(blank, keras.ops.ones((2, 3)))) == 0.0


def test_weighted_loss_multiplies_the_positives_of_each_finding():
    weights = np.array([3.0, 0.5, 7.0], np.float32)
    total = 0.0
    for label, logit, weight in zip(LABELS.ravel(), LOGITS.ravel().astype(float), np.tile(weights, 4), strict=True):
        if label == 1:
            total += weight * np.logaddexp(0, -logit)
        elif label == 0:
            total += np.logaddexp(0, logit)
    loss = float(make_loss(weights)(keras.ops.convert_to_tensor(LABELS), keras.ops.convert_to_tensor(LOGITS)))
    assert loss == pytest.approx(total / 10, rel=1e-5)


@pytest.mark.parametrize(
    ("targets", "loss", "slope"),
    [
        ([[1, 0], [2, 4]], (4 + 0 + 1 + 16) / 4, [[-1, 0], [-0.5, -2]]),
        ([[1, 0], [NAN, NAN]], (4 + 0) / 2, [[-2, 0], [0, 0]]),
        ([[NAN, NAN], [NAN, NAN]], 0, [[0, 0], [0, 0]]),
    ],
)
def test_the_feature_loss_and_its_slope_equal_the_hand_worked_table(targets, loss, slope):
    """Features of -1, 0 and 1, 0; the slope is twice the error over the number of known targets, and never NaN."""
    import tensorflow as tf

    features = tf.constant([[-1.0, 0.0], [1.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(features)
        found = feature_loss(tf.constant(targets, tf.float32), features)
    assert float(found) == pytest.approx(loss)
    np.testing.assert_allclose(tape.gradient(found, features), slope)


@pytest.mark.fault("C22", "C23")
def test_positive_weights_equal_the_hand_worked_table():
    columns = {
        (1, 0, 0, 0): 3.0,
        (1, 1, 1, 0): 1 / 3,
        (1, 0, NAN, NAN): 1.0,
        (1, NAN, 0, 0): 2.0,
        (0, 0, 0, 0): 1.0,
        (1, 1, 1, 1): 1.0,
        (NAN, NAN, NAN, NAN): 1.0,
    }
    np.testing.assert_allclose(positive_weights(np.array(list(columns)).T), list(columns.values()), rtol=1e-6)
    rare = np.zeros((1000, 2), np.float32)
    rare[0, 0], rare[1:, 1] = 1, 1
    np.testing.assert_allclose(positive_weights(rare), [MAX_POSITIVE_WEIGHT, 1 / MAX_POSITIVE_WEIGHT])


def train_by_hand(make, gradients):
    """Take a step per set of gradients at a falling rate; return the variables and the moments."""
    rng = np.random.default_rng(8)
    variables = [
        keras.Variable(rng.normal(size=shape).astype(np.float32), name=name)
        for name, shape in (("kernel", (3, 4)), ("bias", (4,)), ("gamma", (4,)))
    ]
    optimiser = make()
    optimiser.build(variables)
    for step, values in enumerate(gradients):
        optimiser.learning_rate = 0.1 / (step + 1)
        optimiser.apply([keras.ops.convert_to_tensor(value) for value in values], variables)
    return [np.asarray(one) for one in (*variables, *optimiser.variables)]


def keras_adamw():
    optimiser = keras.optimizers.AdamW(0.1, weight_decay=0.2, global_clipnorm=CLIP_NORM)
    optimiser.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimiser


def test_optimiser_equals_keras_adamw_with_gradients_that_are_clipped_and_some_that_are_not():
    rng = np.random.default_rng(9)
    gradients = [
        [(scale * rng.normal(size=shape)).astype(np.float32) for shape in ((3, 4), (4,), (4,))]
        for scale in (0.01, 3.0, 0.1, 0.5)
    ]
    found, expected = (train_by_hand(make, gradients) for make in (lambda: make_optimiser(0.1, 0.2), keras_adamw))
    assert len(found) == len(expected) == 3 + 2 + 2 * 3  # steps and rate, two moments of each variable
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_optimiser_spreads_what_is_not_finite_to_every_variable():
    gradients = [[np.full((3, 4), NAN, np.float32), np.ones(4, np.float32), np.ones(4, np.float32)]]
    variables = train_by_hand(lambda: make_optimiser(0.1, 0.2), gradients)[:3]
    assert all(np.isnan(one).all() for one in variables)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs JAX (requirements-jax.txt)")
def test_steps_that_hold_their_state_on_jax_equal_keras_own():
    script = ROOT / "tests" / "support" / "steps_on_jax.py"
    variables = os.environ | {"PYTHONPATH": f"{ROOT}:{script.parent}"}
    done = subprocess.run([sys.executable, str(script)], env=variables, capture_output=True, text=True, check=True)
    one_loss, one_loss_held, two_losses, two_losses_held = map(json.loads, done.stdout.splitlines())
    assert one_loss_held == one_loss
    assert two_losses_held == two_losses
    assert two_losses["told"] != one_loss["told"]
    assert len({loss for loss, _ in one_loss["told"]}) == 6
