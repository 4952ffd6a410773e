"""The scale of features: by channel, over what is known."""

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from cxr.distillation.feature_scale import measure_scale


def test_features_are_standardised_by_channel():
    features = np.random.default_rng(0).normal([3, -2, 0], [2, 0.5, 0], (7, 4, 4, 3)).astype(np.float32)
    found = measure_scale(features)
    rows = np.float64(features.reshape(-1, 3))
    assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-5, atol=1e-7)
    assert_allclose(found.deviation, rows.std(axis=0) + 0.01, rtol=1e-5)
    standardised = found.standardise(features)
    assert standardised.dtype == np.float32
    assert_allclose(standardised, (features - rows.mean(axis=0)) / (rows.std(axis=0) + 0.01), rtol=1e-4, atol=1e-5)


def test_rows_of_nan_are_left_out():
    features = np.array([[1, 10], [np.nan, np.nan], [3, 30]], np.float32)
    found = measure_scale(features)
    assert_allclose(found.mean, [2, 20])
    assert_allclose(found.deviation, [1.01, 10.01])
    assert_allclose(found.standardise(features), [[-1 / 1.01, -10 / 10.01], [np.nan] * 2, [1 / 1.01, 10 / 10.01]])
    nothing = measure_scale(features[1:2])
    assert_array_equal(nothing.mean, [0, 0])
    assert_array_equal(nothing.deviation, [1, 1])
