"""Losses, calibration error and calibration against scikit-learn and known answers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from predictions import random_split
from sklearn import metrics as sk

from cxr.metrics.calibration import (
    Calibration,
    binary_cross_entropy,
    brier_score,
    calibrate_logits,
    expected_calibration_error,
    fit_calibration,
    reliability_bins,
    sigmoid,
)
from cxr.metrics.ranking import mean_auroc

# Losses and calibration


@pytest.mark.parametrize("seed", range(3))
def test_losses_equal_scikit_learn(seed):
    labels, logits = random_split(seed, num_findings=3)
    known = ~np.isnan(labels)
    probabilities = sigmoid(logits)
    assert_allclose(binary_cross_entropy(labels, logits), sk.log_loss(labels[known], probabilities[known]), rtol=1e-9)
    assert_allclose(brier_score(labels, probabilities), sk.brier_score_loss(labels[known], probabilities[known]))


def test_loss_stays_finite_where_probabilities_saturate():
    assert binary_cross_entropy(np.array([1.0, 0.0]), np.array([-800.0, 800.0])) == 800.0
    assert sigmoid(np.array([-800.0, 0.0, 800.0])).tolist() == [0.0, 0.5, 1.0]


def test_calibration_error_by_hand():
    # Two bins of two: stated .1 and .3 with none seen (gap .2); stated .6 and .8 with one seen of two (gap .2).
    labels, probabilities = np.array([0.0, 0.0, 1.0, 0.0]), np.array([0.1, 0.3, 0.6, 0.8])
    assert_allclose(expected_calibration_error(labels, probabilities, num_bins=2), 0.2)
    bins = reliability_bins(labels, probabilities, num_bins=2)
    assert [(group.mean_probability, group.observed_rate, group.num_cases) for group in bins] == [
        (pytest.approx(0.2), 0.0, 2),
        (pytest.approx(0.7), 0.5, 2),
    ]


def test_calibration_error_of_a_constant_does_not_depend_on_row_order():
    labels = np.array([1.0] * 20 + [0.0] * 80)
    assert_allclose(expected_calibration_error(labels, np.full(100, 0.2)), 0.0, atol=1e-12)
    assert_allclose(expected_calibration_error(labels[::-1], np.full(100, 0.5)), 0.3)


def test_calibration_measures_of_blank_columns_are_undefined():
    blanks = np.full(3, np.nan)
    assert np.isnan(expected_calibration_error(blanks, np.zeros(3)))
    assert np.isnan(brier_score(blanks, np.zeros(3))) and np.isnan(binary_cross_entropy(blanks, np.zeros(3)))


@pytest.mark.parametrize("temperature, shift", [(2.5, 0.0), (0.6, 0.0), (1.0, -2.0), (1.8, 1.0)])
def test_calibration_recovers_a_known_temperature_and_shift(temperature, shift):
    rng = np.random.default_rng(0)
    true_logits = rng.normal(-1.0, 1.5, (20_000, 2))
    labels = (rng.random(true_logits.shape) < sigmoid(true_logits)).astype(np.float32)
    calibration = fit_calibration(labels, true_logits * temperature + shift)
    assert_allclose(calibration.slopes, 1 / temperature, rtol=0.06)
    assert_allclose(calibration.biases, -shift / temperature, atol=0.08)


def test_calibration_follows_findings_that_differ():
    rng = np.random.default_rng(0)
    true_logits = rng.normal(-1.0, 1.5, (20_000, 2))
    labels = (rng.random(true_logits.shape) < sigmoid(true_logits)).astype(np.float32)
    temperatures, shifts = np.array([3.0, 0.8]), np.array([-4.0, -1.0])
    calibration = fit_calibration(labels, true_logits * temperatures + shifts)
    assert_allclose(calibration.slopes, 1 / temperatures, rtol=0.06)
    assert_allclose(calibration.biases, -shifts / temperatures, rtol=0.08)


def test_calibration_improves_unseen_loss_on_a_small_split():
    rng = np.random.default_rng(1)
    prevalence_logits = np.linspace(-3.5, -1.0, 14)
    true_logits = prevalence_logits + rng.normal(0, 1.2, (4187, 14))
    labels = (rng.random(true_logits.shape) < sigmoid(true_logits)).astype(np.float32)
    logits = 2.0 * true_logits + 1.0  # overconfident and shifted
    calibration = fit_calibration(labels[:187], logits[:187])
    ideal = binary_cross_entropy(labels[187:], true_logits[187:])
    before = binary_cross_entropy(labels[187:], logits[187:])
    after = binary_cross_entropy(labels[187:], calibrate_logits(logits[187:], calibration))
    assert after - ideal < 0.2 * (before - ideal)


def test_calibration_keeps_every_ranking():
    labels, logits = random_split(5, num_rows=60)
    labels = np.where(np.isnan(labels), labels, 1 - labels)  # a model that ranks backwards
    calibration = fit_calibration(labels, logits)
    assert min(calibration.slopes) > 0
    assert_allclose(mean_auroc(labels, calibrate_logits(logits, calibration))[0], mean_auroc(labels, logits)[0])


@pytest.mark.fault("C23")
@pytest.mark.parametrize(
    "labels, logits",
    [
        (np.zeros((50, 2)), np.random.default_rng(0).normal(size=(50, 2))),
        (np.full((50, 2), np.nan), np.zeros((50, 2))),
        ((np.arange(100) >= 50).astype(float).reshape(50, 2), np.linspace(-9, 9, 100).reshape(50, 2)),
        ((np.arange(100) % 2).astype(float).reshape(50, 2), np.full((50, 2), 60.0)),
        ((np.random.default_rng(3).random((50, 2)) < 0.3).astype(float), np.full((50, 2), -1000.0)),
    ],
    ids=["one class", "all blank", "separable", "constant", "saturated"],
)
def test_calibration_of_degenerate_splits_is_finite(labels, logits):
    calibration = fit_calibration(labels, logits)
    assert np.isfinite(calibration.slopes).all() and np.isfinite(calibration.biases).all()
    assert min(calibration.slopes) > 0
    assert all(type(number) is float for number in calibration.slopes + calibration.biases)  # fit for JSON
    if not (labels == 1).any():
        assert calibration == Calibration((1.0, 1.0), (0.0, 0.0))
