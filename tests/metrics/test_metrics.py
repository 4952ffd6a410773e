"""Numbers against scikit-learn, slow references and hand-worked tables."""

import dataclasses
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import metrics as sk

from cxr.metrics import ranking
from cxr.metrics.calibration import (
    MIN_CASES,
    Calibration,
    binary_cross_entropy,
    brier_score,
    calibrate_logits,
    expected_calibration_error,
    fit_calibration,
    reliability_bins,
    sigmoid,
)
from cxr.metrics.per_finding import (
    Predictions,
    choose_thresholds,
    count_confusion,
    evaluate,
)
from cxr.metrics.ranking import auroc, average_precision, estimate_rankings, mean_auroc, resample_weights


def random_split(seed, num_rows=120, num_findings=4, prevalence=0.25, blanks=0.1, ties=True):
    rng = np.random.default_rng(seed)
    labels = (rng.random((num_rows, num_findings)) < prevalence).astype(np.float32)
    logits = rng.normal(-1.0, 1.0, labels.shape) + 1.2 * labels
    if ties:
        logits = np.round(logits * 2) / 2
    labels[rng.random(labels.shape) < blanks] = np.nan
    return labels, logits.astype(np.float32)


def make_predictions(labels, logits, patients=None):
    images = tuple(f"{row:03d}.png" for row in range(len(labels)))
    findings = tuple(f"Finding {column}" for column in range(labels.shape[1]))
    return Predictions(images, tuple(patients) if patients is not None else images, findings, labels, logits)


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


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [np.nan, np.nan, np.nan], [1, np.nan, 1]])
def test_C22_T16_ranking_of_one_class_is_undefined(labels):
    labels = np.array(labels, dtype=float)
    assert np.isnan(auroc(labels, np.array([0.1, 0.2, 0.3])))
    assert np.isnan(average_precision(labels, np.array([0.1, 0.2, 0.3])))


def test_C22_mean_auroc_leaves_out_what_is_undefined():
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


# Confusion and thresholds


def test_confusion_four_rows_by_hand():
    labels = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    confusion = count_confusion(labels, np.array([0.5, 0.2, 0.7, 0.1, 0.9]), 0.5)
    assert dataclasses.astuple(confusion) == (0.5, 1, 1, 1, 1)  # a probability at the threshold counts as predicted
    assert (confusion.sensitivity, confusion.specificity, confusion.precision, confusion.f1) == (0.5, 0.5, 0.5, 0.5)
    assert confusion.num_correct == 2


@pytest.mark.parametrize("seed", range(3))
def test_confusion_rates_equal_scikit_learn(seed):
    labels, logits = random_split(seed, num_findings=1)
    confusion = count_confusion(labels[:, 0], sigmoid(logits[:, 0]), 0.4)
    known = ~np.isnan(labels[:, 0])
    truth, predicted = labels[known, 0], sigmoid(logits[known, 0]) >= 0.4
    matrix = sk.confusion_matrix(truth, predicted)
    assert matrix.tolist() == [
        [confusion.true_negatives, confusion.false_positives],
        [confusion.false_negatives, confusion.true_positives],
    ]
    assert_allclose(confusion.f1, sk.f1_score(truth, predicted))
    assert_allclose(confusion.precision, sk.precision_score(truth, predicted))
    assert_allclose(confusion.sensitivity, sk.recall_score(truth, predicted))
    assert_allclose(confusion.specificity, sk.recall_score(truth, predicted, pos_label=0))


def test_confusion_rates_without_cases_are_undefined():
    confusion = count_confusion(np.array([0.0, 0.0]), np.array([0.1, 0.2]), 0.5)
    assert np.isnan([confusion.sensitivity, confusion.precision, confusion.f1]).all()
    assert confusion.specificity == 1.0


def test_chosen_threshold_by_hand():
    # Negatives at .1 to .4 and one at .65; positives at .6, .7, .75, .8, .9. Cutting between .4 and .6 finds all five
    # with one false alarm: F1 = 10/11; above .65 it would be 8/9.
    probabilities = np.array([0.1, 0.2, 0.3, 0.4, 0.65, 0.6, 0.7, 0.75, 0.8, 0.9])[:, None]
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=float)[:, None]
    assert choose_thresholds(labels, probabilities) == pytest.approx((0.5,))
    assert choose_thresholds(labels, probabilities / 4) == pytest.approx((0.125,))


@pytest.mark.parametrize("seed", range(4))
def test_chosen_threshold_has_the_highest_f1_of_all(seed):
    labels, logits = random_split(seed, num_findings=2)
    probabilities = sigmoid(logits)
    for column, threshold in enumerate(choose_thresholds(labels, probabilities)):
        known = ~np.isnan(labels[:, column])
        truth, stated = labels[known, column], probabilities[known, column]
        best = max(sk.f1_score(truth, stated >= cut) for cut in np.unique(stated))
        assert_allclose(sk.f1_score(truth, stated >= threshold), best)


@pytest.mark.parametrize("num_positives", [0, MIN_CASES - 1, 40 - MIN_CASES + 1, 40])
def test_chosen_threshold_of_too_few_cases_is_the_default(num_positives):
    labels = (np.arange(40) < num_positives).astype(float)[:, None]
    assert choose_thresholds(labels, np.linspace(0.9, 0.01, 40)[:, None]) == (0.5,)


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
def test_C23_calibration_of_degenerate_splits_is_finite(labels, logits):
    calibration = fit_calibration(labels, logits)
    assert np.isfinite(calibration.slopes).all() and np.isfinite(calibration.biases).all()
    assert min(calibration.slopes) > 0
    assert all(type(number) is float for number in calibration.slopes + calibration.biases)  # fit for JSON
    if not (labels == 1).any():
        assert calibration == Calibration((1.0, 1.0), (0.0, 0.0))


# The evaluation as a whole


def test_evaluation_brings_the_parts_together():
    labels, logits = random_split(9, num_rows=80, num_findings=3)
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), np.nan, 0)  # one class: undefined
    predictions = make_predictions(labels, logits, [f"{row // 2}" for row in range(80)])
    calibration = Calibration((0.5, 0.5, 0.5), (0.1, 0.1, 0.1))
    evaluation = evaluate(predictions, (0.3, 0.4, 0.5), calibration, num_resamples=100, seed=1)
    known = ~np.isnan(labels)
    assert (evaluation.num_images, evaluation.num_patients, evaluation.num_defined) == (80, 40, 2)
    expected = [
        sk.roc_auc_score(labels[known[:, column], column], logits[known[:, column], column]) for column in (0, 1)
    ]
    assert_allclose([row.auroc.value for row in evaluation.findings[:2]], expected)
    assert_allclose(evaluation.mean_auroc.value, np.mean(expected))
    assert np.isnan(evaluation.findings[2].auroc.value)
    assert evaluation.findings[2].support == 0
    assert_allclose(evaluation.accuracy, sk.accuracy_score(labels[known], sigmoid(logits[known]) >= 0.5))
    assert_allclose(evaluation.baseline_accuracy, 1 - labels[known].mean())
    assert_allclose(evaluation.stated.loss, sk.log_loss(labels[known], sigmoid(logits[known])))
    assert_allclose(evaluation.calibrated.brier, np.mean((sigmoid(logits / 2 + 0.1) - labels)[known] ** 2), rtol=1e-6)
    prevalence = np.nanmean(labels, axis=0) + 0 * labels
    assert_allclose(evaluation.baseline_loss, sk.log_loss(labels[known], prevalence[known]), rtol=1e-6)
    assert [row.at_chosen.threshold for row in evaluation.findings] == [0.3, 0.4, 0.5]
    assert (
        evaluate(predictions, (0.3, 0.4, 0.5), calibration, num_resamples=100, seed=1).mean_auroc
        == evaluation.mean_auroc
    )


def test_evaluation_without_calibration_says_none():
    labels, logits = random_split(0, num_rows=30)
    evaluation = evaluate(make_predictions(labels, logits), (0.5,) * 4, num_resamples=10)
    assert evaluation.calibrated is None and evaluation.findings[0].calibrated is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"logits": np.zeros((4, 3))}, r"expected labels and logits of shape \(4, 2\)"),
        ({"patients": ("a",)}, "received .* and 1"),
        ({"labels": np.full((4, 2), 2.0)}, "0, 1 or NaN"),
        ({"logits": np.full((4, 2), np.nan)}, "NaN or infinity"),
        (
            {"images": (), "patients": (), "labels": np.zeros((0, 2)), "logits": np.zeros((0, 2))},
            "no rows",
        ),
    ],
)
def test_predictions_that_do_not_fit_are_refused(change, message):
    good = make_predictions(np.zeros((4, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(good, **change)


def test_evaluation_refuses_a_wrong_number_of_thresholds():
    with pytest.raises(ValueError, match="expected 2 thresholds"):
        evaluate(make_predictions(np.zeros((4, 2)), np.zeros((4, 2))), (0.5,))
