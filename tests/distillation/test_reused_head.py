"""The teachers' heads behind a linear map: its first fit, its outputs, and the dense layer that it amounts to."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge

from cxr.distillation.reused_head import RIDGE, ReusedHead, fit_map

CHANNELS, FEATURES, FINDINGS = 5, 7, 3


def make_head(seed=0):
    rng = np.random.default_rng(seed)
    shapes = (CHANNELS, FEATURES), (FEATURES,), (FEATURES, FINDINGS), (FINDINGS,)
    parts = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return ReusedHead(*parts), parts


@pytest.mark.parametrize("num_pictures", [4, 50])
def test_the_map_is_ridge_regression(num_pictures):
    """Rows without an answer are left out; fewer pictures than channels will do."""
    rng = np.random.default_rng(1)
    features, targets = rng.normal(2, 3, (num_pictures, CHANNELS)), rng.normal(1, 2, (num_pictures, FEATURES))
    gaps = np.concatenate([targets, np.full((2, FEATURES), np.nan)])
    kernel, bias = fit_map(np.concatenate([features, rng.normal(size=(2, CHANNELS))]), gaps)
    alpha = RIDGE * features.var(axis=0).sum() * num_pictures / CHANNELS
    oracle = Ridge(alpha).fit(features, targets)
    assert_allclose(kernel, oracle.coef_.T, rtol=1e-5, atol=1e-6)
    assert_allclose(bias, oracle.intercept_, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 3])
def test_without_answers_or_differences_the_map_is_zero(rows):
    kernel, bias = fit_map(np.ones((rows, CHANNELS)), np.zeros((rows, FEATURES)))
    assert kernel.shape == (CHANNELS, FEATURES)
    assert not kernel.any() and not bias.any()


def test_outputs_are_the_products_and_one_dense_layer_gives_the_same():
    head, (kernel, bias, head_kernel, head_bias) = make_head()
    cells = np.random.default_rng(2).normal(size=(4, 2, 3, CHANNELS)).astype(np.float32)
    pooled = cells.mean(axis=(1, 2))
    logits, of_cells, features = (np.asarray(one) for one in head(pooled, cells))
    assert_allclose(features, pooled @ kernel + bias, rtol=1e-4, atol=1e-5)
    assert_allclose(logits, (pooled @ kernel + bias) @ head_kernel + head_bias, rtol=1e-4, atol=1e-5)
    assert_allclose(of_cells.mean(axis=(1, 2)), logits, rtol=1e-4, atol=1e-5)
    dense_kernel, dense_bias = head.as_dense()
    assert_allclose(cells @ dense_kernel + dense_bias, of_cells, rtol=1e-4, atol=1e-5)


def test_the_map_is_learned_and_the_heads_are_not():
    head, (kernel, bias, *_) = make_head()
    assert [variable.name for variable in head.trainable_variables] == ["kernel", "bias"]
    assert_allclose(head.trainable_variables[0], kernel)
    assert_allclose(head.trainable_variables[1], bias)
