"""Losses and positive weights against closed forms and Keras."""

import math

import keras
import numpy as np
import pytest
from small_training import NAN

from cxr.training.losses import MAX_POSITIVE_WEIGHT, make_loss, positive_weights

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
