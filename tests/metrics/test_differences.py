"""The paired difference of two models' AUROC, against a bootstrap that is written out."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxr.metrics.ranking import estimate_differences, resample_weights


def drawn(seed=0, num_rows=150):
    random = np.random.default_rng(seed)
    labels = (random.uniform(size=(num_rows, 3)) < 0.4).astype(np.float32)
    labels[::7, 1] = np.nan
    labels[:, 2] = 0  # one class: no AUROC
    first = labels + random.normal(0, 0.8, labels.shape)
    second = labels + random.normal(0, 1.6, labels.shape)
    first[np.isnan(first)], second[np.isnan(second)] = 0, 0
    return labels, first.round(1), second.round(1), [str(row // 3) for row in range(num_rows)]


def test_difference_and_interval_are_those_of_a_bootstrap_written_out():
    labels, first, second, patients = drawn()
    found = estimate_differences(labels, first, second, patients, num_resamples=60, seed=5)
    (weights,) = resample_weights(patients, 60, 5)
    means = []
    for k in (0, 1):
        known = ~np.isnan(labels[:, k])

        def difference(weight, k=k, known=known):
            truth, weight = labels[known, k], weight[known]
            a, b = (roc_auc_score(truth, one[known, k], sample_weight=weight) for one in (first, second))
            return a - b

        resampled = [difference(weight) for weight in weights]
        assert found.auroc[k].value == pytest.approx(difference(np.ones(len(labels))))
        assert [found.auroc[k].low, found.auroc[k].high] == pytest.approx(np.percentile(resampled, [2.5, 97.5]))
        means.append(resampled)
    assert [found.mean_auroc.low, found.mean_auroc.high] == pytest.approx(np.percentile(np.mean(means, 0), [2.5, 97.5]))
    assert found.mean_auroc.value == pytest.approx(np.mean([one.value for one in found.auroc[:2]]))
    assert np.isnan(found.auroc[2].value)
    assert found.num_defined == 2


def test_model_against_itself_differs_by_exactly_nothing():
    labels, first, _, patients = drawn()
    found = estimate_differences(labels, first, first.copy(), patients, num_resamples=50)
    for one in (*found.auroc[:2], found.mean_auroc):
        assert (one.value, one.low, one.high) == (0, 0, 0)


def test_pairing_makes_the_interval_narrower_than_that_of_either_model():
    labels, first, _, patients = drawn(seed=2)
    nearly = first + np.random.default_rng(3).normal(0, 0.01, first.shape)
    found = estimate_differences(labels, first, nearly, patients, num_resamples=200)
    assert found.mean_auroc.high - found.mean_auroc.low < 0.02
