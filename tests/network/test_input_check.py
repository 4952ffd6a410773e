"""The input check: distances and limit against their formulas, sources told apart, and what it flags on the sample."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from cxr.network.input_check import (
    FLAGGED_SHARE,
    LAYOUT_SIDE,
    MIN_SPREAD,
    AspectStatistics,
    Source,
    check_inputs,
    distances,
    fit_source,
    fit_statistics,
    layout_features,
    log_likelihoods,
    turned_ratios,
    upper_limit,
)

ROOT = Path(__file__).parents[2]


def test_distance_is_the_mahalanobis_distance_of_probabilistic_pca():
    """Oracle: the full covariance C = W diag(v) W' + s (I - W W'), inverted as a matrix."""
    rng = np.random.default_rng(4)
    train = rng.normal(size=(60, 8)) * [5, 3, 2, 1, 1, 1, 1, 1] + 7
    statistics = fit_statistics(train)
    w, v, s = statistics.components, statistics.variances, statistics.residual_variance
    covariance = w @ np.diag(v) @ w.T + s * (np.eye(8) - w @ w.T)
    queries = rng.normal(size=(5, 8)) * 10
    centred = queries - train.mean(axis=0)
    expected = np.sqrt(np.einsum("nc,cd,nd->n", centred, np.linalg.inv(covariance), centred) / 8)
    assert_allclose(distances(statistics, queries), expected, rtol=1e-4)
    assert_allclose(v, np.linalg.eigvalsh(np.cov(train.T, bias=True))[::-1][: len(v)], rtol=1e-4)


def test_likelihood_is_the_gaussian_density_of_the_same_covariance():
    """Oracle: SciPy's multivariate normal density with the covariance written out, up to c / 2 log 2 pi."""
    train = np.random.default_rng(4).normal(size=(60, 8)) * [5, 3, 2, 1, 1, 1, 1, 1] + 7
    statistics = fit_statistics(train)
    w, v, s = statistics.components, statistics.variances, statistics.residual_variance
    covariance = (w * v) @ w.T + s * (np.eye(8) - w @ w.T)
    queries = np.random.default_rng(5).normal(size=(5, 8)) * 10
    expected = stats.multivariate_normal(train.mean(axis=0), covariance).logpdf(queries) + 4 * np.log(2 * np.pi)
    assert_allclose(log_likelihoods(statistics, queries), expected, rtol=1e-4)


def test_statistics_of_constant_rows_stay_finite():
    statistics = fit_statistics(np.ones((5, 4)))
    assert_array_equal(distances(statistics, np.ones((1, 4))), [0])
    assert np.isfinite(distances(statistics, np.zeros((1, 4)))).all()


@pytest.mark.parametrize(("num_train", "num_reference"), [(1, 5), (5, 1), (5, 0)])
def test_statistics_need_data(num_train, num_reference):
    message = f"at least 2 training and 2 validation radiographs, received {num_train} and {num_reference}"
    train, reference = ((np.ones((n, 4)), np.ones((n, LAYOUT_SIDE**2))) for n in (num_train, num_reference))
    with pytest.raises(ValueError, match=message):
        fit_source(train, reference)


@pytest.mark.parametrize("num_reference", [12, 120, 2000])
@pytest.mark.parametrize("share", [0.005, 0.01, 0.05])
def test_limit_is_the_prediction_limit_of_a_normal_distribution(num_reference, share):
    """Oracle: Student's t of SciPy. The middles of equal shares have no tail of their own."""
    scores = 3 + 0.2 * stats.norm.ppf((np.arange(num_reference) + 0.5) / num_reference)
    t = stats.t.ppf(1 - share, num_reference - 1)
    expected = scores.mean() + t * scores.std(ddof=1) * np.sqrt(1 + 1 / num_reference)
    assert_allclose(upper_limit(scores, share), expected, rtol=0.003)


def test_limit_is_the_quantile_where_the_tail_is_heavier():
    reference = np.concatenate([np.full(960, 1.0) + np.linspace(0, 0.01, 960), np.full(40, 50.0)])
    assert upper_limit(reference, 0.01) == 50.0


@pytest.mark.parametrize(
    ("tail", "num_reference"),
    [
        pytest.param(stats.norm(), 120, id="normal-120"),
        pytest.param(stats.norm(), 1000, id="normal-1000"),
        pytest.param(stats.t(5), 1000, id="heavy-1000"),
    ],
)
def test_limit_flags_about_its_share_of_other_radiographs(tail, num_reference):
    """The mean over 300 fits; a few reference radiographs make single fits vary, and must not make them too strict."""
    scores = tail.rvs(size=(300, num_reference), random_state=np.random.default_rng(0))
    shares = [tail.sf(upper_limit(one)) for one in scores]
    assert 0.7 * FLAGGED_SHARE < np.mean(shares) < 1.2 * FLAGGED_SHARE


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


def plain_statistics(num_features, mean=0.0):
    """A Gaussian around `mean` with unit variance in every direction, so that distances can be worked out by hand."""
    return AspectStatistics(np.full(num_features, mean), np.eye(num_features)[:, :1], np.ones(1), 1.0)


def test_turned_ratio_compares_with_the_nearest_of_the_turned_pictures():
    """Oracle: the six pictures written out, each with its own plain Euclidean distance."""
    rng = np.random.default_rng(3)
    mean, grid = rng.normal(size=(2, LAYOUT_SIDE, LAYOUT_SIDE))
    statistics = AspectStatistics(mean.ravel(), np.eye(64)[:, :1], np.ones(1), 1.0)
    others = (grid[::-1], np.rot90(grid), grid[::-1, ::-1], np.rot90(grid)[::-1, ::-1], -grid)
    expected = np.linalg.norm(grid - mean) / min(np.linalg.norm(one - mean) for one in others)
    assert_allclose(turned_ratios(statistics, grid.reshape(1, 64)), [expected], rtol=1e-5)
    assert turned_ratios(statistics, mean.reshape(1, 64))[0] < 1e-3


def by_hand(source, pooled, layouts):
    """The score of one picture: the root of the summed squares of what each log-distance has above its usual value."""
    found = distances(source.features, pooled), distances(source.layout, layouts), turned_ratios(source.layout, layouts)
    excess = [max(0, (np.log(d[0]) - c) / s) for d, c, s in zip(found, source.centres, source.spreads, strict=True)]
    return np.hypot(np.hypot(excess[0], excess[1]), excess[2])


def make_sources():
    layout = fit_statistics(np.random.default_rng(0).normal(size=(30, LAYOUT_SIDE**2)))
    known = {"layout": layout, "centres": (0.1, -0.2, -0.5), "spreads": (0.2, 0.3, 0.4)}
    near = Source("near", features=plain_statistics(4), limit=2.0, **known)
    return near, Source("far", features=plain_statistics(4, mean=9.0), limit=5.0, **known)


def test_input_check_is_that_of_the_nearest_source_and_names_the_likeliest():
    sources = make_sources()
    model_inputs = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 1), np.uint8)
    layouts = layout_features(model_inputs)
    pooled = np.array([[0.5] * 4, [8.0] * 4, [40.0] * 4])
    unlike, resembled = check_inputs(sources, model_inputs, pooled)
    expected = [
        min(by_hand(source, pooled[i : i + 1], layouts[i : i + 1]) / source.limit for source in sources)
        for i in range(3)
    ]
    assert_allclose(unlike, expected, rtol=1e-5)
    assert_array_equal(resembled, [0, 1, 1])


def test_a_wide_source_does_not_take_what_belongs_to_a_narrow_one():
    """By distance alone the wide cloud, to which everything is near, would win."""
    layout = fit_statistics(np.random.default_rng(0).normal(size=(30, LAYOUT_SIDE**2)))
    wide = AspectStatistics(np.zeros(4), np.eye(4)[:, :1], np.full(1, 100.0), 100.0)
    narrow = AspectStatistics(np.ones(4), np.eye(4)[:, :1], np.full(1, 0.01), 0.01)
    sources = [Source(features=one, layout=layout, centres=(0, 0, 0), spreads=(1, 1, 1)) for one in (wide, narrow)]
    picture = np.full((1, 4), 1.15)
    assert distances(wide, picture)[0] < distances(narrow, picture)[0]
    assert check_inputs(sources, np.zeros((1, 32, 32, 1), np.uint8), picture)[1][0] == 1


def test_sources_without_statistics_check_nothing():
    model_inputs, pooled = np.zeros((1, 32, 32, 1), np.uint8), np.zeros((1, 4))
    assert check_inputs((), model_inputs, pooled) is None
    assert check_inputs((Source("few"),), model_inputs, pooled) is None
    unlike, resembled = check_inputs((Source("few"), *make_sources()), model_inputs, pooled)
    assert (len(unlike), resembled[0]) == (1, 1)  # the position among all sources


def test_fitted_centres_and_spreads_are_those_of_the_reference():
    rng = np.random.default_rng(8)
    train, reference = ((rng.normal(size=(n, 6)), rng.normal(size=(n, LAYOUT_SIDE**2))) for n in (80, 40))
    source = fit_source(train, reference, name="a", num_images=80)
    logs = np.log(
        [distances(source.features, reference[0]), distances(source.layout, reference[1]),
         turned_ratios(source.layout, reference[1])]
    )  # fmt: skip
    assert_allclose(source.centres, logs.mean(axis=1), rtol=1e-5)
    assert_allclose(source.spreads, np.maximum(logs.std(axis=1, ddof=1), MIN_SPREAD), rtol=1e-5)
    assert (source.name, source.num_images) == ("a", 80)


def read_layouts(table, num_images):
    """The layouts of a split's first images, as they are, upside down and inverted."""
    with (ROOT / table).open(newline="") as file:
        names = [row["Image"] for row in csv.DictReader(file)][:num_images]
    pictures = [cv2.imread(str(ROOT / "images" / name), cv2.IMREAD_GRAYSCALE) for name in names]
    plain = np.stack([cv2.resize(one, (128, 128), interpolation=cv2.INTER_AREA) for one in pictures])[..., np.newaxis]
    return [(changed, layout_features(changed)) for changed in (plain, plain[:, ::-1], 255 - plain)]


def test_layout_of_the_sample_flags_upside_down_and_inverted_radiographs():
    """The network has no part in it: all pictures have the same features, so that it holds for whatever is trained."""
    (_, train), (_, val) = (read_layouts(table, 120)[0] for table in ("train-small.csv", "val_data.csv"))
    source = fit_source((np.ones((120, 4)), train), (np.ones((120, 4)), val))
    plain, upside_down, inverted = (
        check_inputs([source], model_inputs, np.ones((120, 4)))[0] > 1
        for model_inputs, _ in read_layouts("test_data.csv", 120)
    )
    assert plain.mean() <= 3 * FLAGGED_SHARE
    assert upside_down.all()
    assert inverted.all()
