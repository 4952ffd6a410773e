"""The check of unlike pictures: distance and limit against their formulas, and what it flags on the sample."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from cxr.network.input_check import (
    FLAGGED_SHARE,
    AspectStatistics,
    distances,
    fit_statistics,
    layout_features,
    novelty,
    upper_limit,
)

ROOT = Path(__file__).parents[1]


def test_distance_is_the_mahalanobis_distance_of_probabilistic_pca():
    """Oracle: the full covariance C = W diag(v) W' + s (I - W W'), inverted as a matrix."""
    rng = np.random.default_rng(4)
    train = rng.normal(size=(60, 8)) * [5, 3, 2, 1, 1, 1, 1, 1] + 7
    statistics = fit_statistics(train, train[:10])
    w, v, s = statistics.components, statistics.variances, statistics.residual_variance
    covariance = w @ np.diag(v) @ w.T + s * (np.eye(8) - w @ w.T)
    queries = rng.normal(size=(5, 8)) * 10
    centred = queries - train.mean(axis=0)
    expected = np.sqrt(np.einsum("nc,cd,nd->n", centred, np.linalg.inv(covariance), centred) / 8)
    assert_allclose(distances(statistics, queries), expected, rtol=1e-4)
    assert_allclose(v, np.linalg.eigvalsh(np.cov(train.T, bias=True))[::-1][: len(v)], rtol=1e-4)


def test_statistics_of_constant_rows_stay_finite():
    statistics = fit_statistics(np.ones((5, 4)), np.ones((2, 4)))
    assert statistics.limit > 0
    assert_array_equal(novelty([(statistics, np.ones((1, 4)))]), [0])
    assert np.isfinite(novelty([(statistics, np.zeros((1, 4)))])).all()


@pytest.mark.parametrize(("num_train", "num_reference"), [(1, 5), (5, 1), (5, 0)])
def test_statistics_need_data(num_train, num_reference):
    message = f"at least 2 training and 2 validation radiographs, received {num_train} and {num_reference}"
    with pytest.raises(ValueError, match=message):
        fit_statistics(np.ones((num_train, 4)), np.ones((num_reference, 4)))


@pytest.mark.parametrize("num_reference", [12, 120, 2000])
@pytest.mark.parametrize("share", [0.005, 0.01, 0.05])
def test_limit_is_the_prediction_limit_of_a_log_normal_distribution(num_reference, share):
    """Oracle: Student's t of SciPy. The middles of equal shares have no tail of their own."""
    logs = 0.3 + 0.2 * stats.norm.ppf((np.arange(num_reference) + 0.5) / num_reference)
    t = stats.t.ppf(1 - share, num_reference - 1)
    expected = logs.mean() + t * logs.std(ddof=1) * np.sqrt(1 + 1 / num_reference)
    assert_allclose(upper_limit(np.exp(logs), share), np.exp(expected), rtol=0.003)


def test_limit_is_the_quantile_where_the_tail_is_heavier():
    reference = np.concatenate([np.full(960, 1.0) + np.linspace(0, 0.01, 960), np.full(40, 50.0)])
    assert upper_limit(reference, 0.01) == 50.0


@pytest.mark.parametrize(
    ("tail", "num_reference"), [(stats.norm(), 120), (stats.norm(), 1000), (stats.t(5), 1000)], ids=str
)
def test_limit_flags_about_its_share_of_other_radiographs(tail, num_reference):
    """The mean over 300 fits; a few reference radiographs make single fits vary, and must not make them too strict."""
    logs = tail.rvs(size=(300, num_reference), random_state=np.random.default_rng(0))
    shares = [tail.sf(np.log(upper_limit(np.exp(one)))) for one in logs]
    assert 0.7 * 0.005 < np.mean(shares) < 1.2 * 0.005


def test_layout_is_the_standardised_mean_of_blocks():
    model_inputs = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 1), np.uint8)
    blocks = model_inputs.reshape(3, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(3, 64)
    expected = (blocks - blocks.mean(axis=1, keepdims=True)) / (blocks.std(axis=1, keepdims=True) + 8)
    assert_allclose(layout_features(model_inputs), expected, atol=1e-5)


def test_layout_ignores_brightness_turns_with_the_picture_and_changes_sign_with_it():
    rng = np.random.default_rng(2)
    picture = cv2.resize(rng.integers(40, 120, (5, 5), np.uint8), (96, 96), interpolation=cv2.INTER_CUBIC)
    plain, brighter, inverted, turned = layout_features(
        np.stack([picture, picture + 60, 255 - picture, picture[::-1]])[..., np.newaxis]
    )
    assert_allclose(brighter, plain, atol=1e-4)
    assert_allclose(inverted, -plain, atol=1e-4)
    assert_allclose(turned.reshape(8, 8), plain.reshape(8, 8)[::-1], atol=1e-4)
    assert np.abs(layout_features(np.full((1, 96, 96, 1), 7, np.uint8))).max() == 0


def test_novelty_is_that_of_the_aspect_that_is_the_most_unlike():
    unit = AspectStatistics(np.zeros(4), np.eye(4)[:, :1], np.ones(1), 1.0, limit=2.0)
    near, far = np.full((1, 4), 1.0), np.full((1, 4), 6.0)  # at distance 1 and 6
    assert_allclose(novelty([(unit, near)]), [0.5])
    assert_allclose(novelty([(unit, near), (unit, far)]), [3.0])
    assert_allclose(novelty([(unit, np.concatenate([near, far])), (unit, np.concatenate([near, near]))]), [0.5, 3.0])


def read_layouts(table, num_images):
    """The layouts of a split's first images, as they are, upside down and inverted."""
    with (ROOT / table).open(newline="") as file:
        names = [row["Image"] for row in csv.DictReader(file)][:num_images]
    pictures = [cv2.imread(str(ROOT / "images" / name), cv2.IMREAD_GRAYSCALE) for name in names]
    plain = np.stack([cv2.resize(one, (128, 128), interpolation=cv2.INTER_AREA) for one in pictures])[..., np.newaxis]
    return [layout_features(changed) for changed in (plain, plain[:, ::-1], 255 - plain)]


def test_layout_of_the_sample_flags_upside_down_and_inverted_radiographs():
    """The network has no part in this aspect, so that it holds for whatever model is trained."""
    train, val = (read_layouts(table, 120)[0] for table in ("train-small.csv", "val_data.csv"))
    statistics = fit_statistics(train, val)
    plain, upside_down, inverted = (novelty([(statistics, rows)]) > 1 for rows in read_layouts("test_data.csv", 120))
    assert plain.mean() <= 3 * FLAGGED_SHARE
    assert upside_down.all()
    assert inverted.all()
