"""Numbers against scikit-learn, slow references and hand-worked tables."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose
from predictions import make_predictions, random_split
from sklearn import metrics as sk

from cxr.metrics.calibration import (
    MIN_CASES,
    Calibration,
    sigmoid,
)
from cxr.metrics.per_finding import (
    choose_thresholds,
    count_confusion,
    evaluate,
)

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
