"""AUROC, average precision and their bootstrap against scikit-learn and a slow reference."""

import time

import numpy as np
import pytest
from numpy.testing import assert_allclose
from predictions import random_split
from sklearn import metrics as sk

from cxr.metrics import ranking
from cxr.metrics.ranking import auroc, average_precision, estimate_rankings, mean_auroc, resample_weights

# Ranking


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [True, False])
def test_ranking_equals_scikit_learn(seed, ties):
    labels, scores = random_split(seed, ties=ties)
    for column in range(labels.shape[1]):
        known = ~np.isnan(labels[:, column])
        truth, stated = labels[known, column], scores[known, column]
        assert_allclose(auroc(labels[:, column], scores[:, column]), sk.roc_auc_score(truth, stated), rtol=1e-12)
        assert_allclose(
            average_precision(labels[:, column], scores[:, column]),
            sk.average_precision_score(truth, stated),
            rtol=1e-12,
        )


def test_ranking_four_rows_by_hand():
    labels, scores = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.8, 0.8, 0.1])
    # Pairs (positive, negative): .9>.8, .9>.1, .8=.8 (half), .8>.1 -> 3.5 of 4.
    assert auroc(labels, scores) == 3.5 / 4
    # The first positive at precision 1/1, the second (tied with a negative) at 2/3.
    assert_allclose(average_precision(labels, scores), (1 + 2 / 3) / 2)


@pytest.mark.fault("C22", "T16")
@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [np.nan, np.nan, np.nan], [1, np.nan, 1]])
def test_ranking_of_one_class_is_undefined(labels):
    labels = np.array(labels, dtype=float)
    assert np.isnan(auroc(labels, np.array([0.1, 0.2, 0.3])))
    assert np.isnan(average_precision(labels, np.array([0.1, 0.2, 0.3])))


@pytest.mark.fault("C22")
def test_mean_auroc_leaves_out_what_is_undefined():
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.8, 0.3], [0.1, 0.4]])
    assert mean_auroc(labels, scores) == (3.5 / 4, 1)
    value, count = mean_auroc(labels[:, 1:], scores[:, 1:])
    assert np.isnan(value) and count == 0


# Bootstrap


def slow_bootstrap(labels, scores, patients, num_resamples, seed):
    """Resample patients row by row, with scikit-learn on the repeated rows; returns (resamples, findings, 2)."""
    names = np.unique(patients)
    drawn = np.random.default_rng(seed).integers(0, len(names), size=(num_resamples, len(names)))
    values = np.full((num_resamples, labels.shape[1], 2), np.nan)
    for resample, patient_numbers in enumerate(drawn):
        rows = np.concatenate([np.flatnonzero(patients == names[number]) for number in patient_numbers])
        for column in range(labels.shape[1]):
            known = rows[~np.isnan(labels[rows, column])]
            if len(np.unique(labels[known, column])) == 2:
                values[resample, column, 0] = sk.roc_auc_score(labels[known, column], scores[known, column])
                values[resample, column, 1] = sk.average_precision_score(labels[known, column], scores[known, column])
    return values


def test_bootstrap_equals_slow_reference():
    labels, scores = random_split(7, num_rows=60, num_findings=3)
    labels[:, 2] = np.where(np.arange(60) < 6, 1.0, 0.0)  # few positives: some resamples may have none
    patients = np.array([f"p{row // 2}" if row < 40 else f"q{row}" for row in range(60)])
    labels[:, 2] = np.where(np.isin(patients, ["p0", "p3", "q50", "q51", "q52"]), 1.0, 0.0)
    reference = slow_bootstrap(labels, scores, patients, 80, seed=3)
    estimates = estimate_rankings(labels, scores, patients, num_resamples=80, seed=3)
    for column in range(3):
        for measure, ours in enumerate((estimates.auroc[column], estimates.average_precision[column])):
            expected = np.nanpercentile(reference[:, column, measure], [2.5, 97.5])
            assert_allclose([ours.low, ours.high], expected, rtol=1e-10)
    expected_mean = np.percentile(np.nanmean(reference[:, :, 0], axis=1), [2.5, 97.5])
    assert_allclose([estimates.mean_auroc.low, estimates.mean_auroc.high], expected_mean, rtol=1e-10)


def test_bootstrap_with_one_row_per_patient_is_a_row_bootstrap():
    labels, scores = random_split(1, num_rows=50, num_findings=1, blanks=0)
    patients = [f"{row:02d}" for row in range(50)]
    weights = np.concatenate(list(resample_weights(patients, 30, seed=5)))
    rows = np.random.default_rng(5).integers(0, 50, size=(30, 50))
    assert_allclose(weights, [np.bincount(drawn, minlength=50) for drawn in rows])
    expected = [sk.roc_auc_score(labels[drawn, 0], scores[drawn, 0]) for drawn in rows]
    estimate = estimate_rankings(labels, scores, patients, 30, seed=5).auroc[0]
    assert_allclose([estimate.low, estimate.high], np.percentile(expected, [2.5, 97.5]))


def test_bootstrap_interval_widens_when_rows_are_copies_of_a_patient():
    labels, scores = random_split(2, num_rows=80, num_findings=1, blanks=0)
    labels, scores = np.repeat(labels, 5, axis=0), np.repeat(scores, 5, axis=0)
    one_patient_per_row = estimate_rankings(labels, scores, [f"{row}" for row in range(400)]).auroc[0]
    five_rows_per_patient = estimate_rankings(labels, scores, [f"{row // 5}" for row in range(400)]).auroc[0]
    assert one_patient_per_row.value == five_rows_per_patient.value
    ratio = (five_rows_per_patient.high - five_rows_per_patient.low) / (
        one_patient_per_row.high - one_patient_per_row.low
    )
    assert ratio == pytest.approx(np.sqrt(5), rel=0.2)


def test_bootstrap_does_not_depend_on_the_block_size(monkeypatch):
    patients = [f"{row // 3}" for row in range(90)]
    whole = np.concatenate(list(resample_weights(patients, 50, seed=1)))
    monkeypatch.setattr(ranking, "WEIGHTS_PER_BLOCK", 1000)
    blocks = list(resample_weights(patients, 50, seed=1))
    assert len(blocks) == 5
    assert_allclose(np.concatenate(blocks), whole)


def test_bootstrap_gives_no_interval_for_too_few_patients():
    labels, scores = random_split(3, num_rows=60, num_findings=2, blanks=0)
    patients = [f"{row}" for row in range(60)]
    labels[:, 1] = 0
    labels[:4, 1] = 1
    estimates = estimate_rankings(labels, scores, patients, num_resamples=50)
    assert np.isfinite(estimates.auroc[0].low)
    assert np.isfinite(estimates.auroc[1].value) and np.isnan([estimates.auroc[1].low, estimates.auroc[1].high]).all()
    assert np.isnan(estimates.average_precision[1].low)
    assert estimates.num_defined == 2 and np.isfinite(estimates.mean_auroc.low)


def test_bootstrap_is_fast_enough_for_a_test_split():
    labels, scores = random_split(4, num_rows=240, num_findings=14)
    started = time.perf_counter()
    estimate_rankings(labels, scores, [f"{row // 2}" for row in range(240)], num_resamples=1000)
    assert time.perf_counter() - started < 5  # about 0.15 s on one free core
