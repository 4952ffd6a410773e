"""Augmentation: what the strong limits add, against closed forms and hand-worked pictures."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from cxr.data.batches import AUGMENTATIONS, AugmentationLimits, affine_matrix, augment, mix

STILL = AugmentationLimits(rotation=0, shift=0, zoom=0, brightness=0, contrast=0)


def changed(picture, seed=0, **limits):
    return augment(picture, np.random.default_rng(seed), dataclasses.replace(STILL, **limits))[0]


def plane(level, size=64):
    return np.full((size, size, 1), level, np.uint8)


def test_stretch_widens_and_flattens_about_the_middle_and_keeps_the_area():
    matrix = affine_matrix(101, angle=0, shift=(0, 0), zoom=1, stretch=1.21)

    assert_allclose(matrix @ [50, 50, 1], [50, 50])
    assert_allclose(matrix @ [60, 60, 1], [50 + 10 * 1.1, 50 + 10 / 1.1])
    assert_allclose(np.linalg.det(matrix[:, :2]), 1.0)


def test_without_stretch_the_matrix_is_the_old_one_to_the_bit():
    still = affine_matrix(64, angle=3, shift=(1, 2), zoom=1.1)

    assert_array_equal(still, affine_matrix(64, angle=3, shift=(1, 2), zoom=1.1, stretch=1.0))


def test_the_light_limits_draw_six_numbers_and_no_more():
    generator, other = np.random.default_rng(5), np.random.default_rng(5)
    augment(plane(90), generator, AUGMENTATIONS["light"])
    other.uniform(-1, 1, 6)

    assert generator.random() == other.random()  # the same seed gives the pictures that it always gave


def test_gamma_is_a_power_of_the_grey_level_between_its_limits():
    exponents = []
    for seed in range(60):
        level = int(changed(plane(100), seed, gamma=0.5)[32, 32, 0])
        exponents.append(np.log(level / 255) / np.log(100 / 255))
        assert changed(plane(0), seed, gamma=0.5).max() == 0
        assert changed(plane(255), seed, gamma=0.5).min() == 255

    assert 1 / 1.5 - 0.01 <= min(exponents) < 0.8
    assert 1.2 < max(exponents) <= 1.5 + 0.01


def test_noise_is_as_wide_as_drawn_and_has_no_mean():
    spreads = [changed(plane(128, 128), seed, noise=6.0).astype(float) for seed in range(20)]

    assert max(one.std() for one in spreads) <= 6.0 * 1.05
    assert np.mean([one.std() for one in spreads]) == pytest.approx(3.0, abs=1.0)  # the mean of 0 to 6
    assert all(abs(one.mean() - 128) < 0.2 for one in spreads)


def test_blur_spreads_a_dot_by_the_drawn_deviation_and_loses_no_light():
    picture = plane(0, 224)
    picture[110:114, 110:114] = 255
    widest = 0.0
    for seed in range(20):
        out = changed(picture, seed, blur=1.2)[..., 0].astype(float)
        across = out.sum(axis=0) / out.sum()
        centre = (across * np.arange(224)).sum()
        widest = max(widest, (across * (np.arange(224) - centre) ** 2).sum() - 15 / 12)  # less the square's own
        assert out.sum() == pytest.approx(16 * 255, rel=0.03)

    assert 0.8 < widest < 1.2**2 * 1.1


def test_half_the_pictures_lose_a_rectangle_of_one_level_no_larger_than_the_limit():
    erased = 0
    for seed in range(80):
        out = changed(plane(77, 100), seed, erased=0.25)[..., 0]
        rows, columns = np.nonzero(out != 77)
        if len(rows):
            erased += 1
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            assert max(height, width) <= 25
            assert len(rows) == height * width
            assert len(np.unique(out)) == 2

    assert 25 <= erased <= 55


def test_the_warp_that_is_returned_is_the_warp_of_the_picture():
    picture = plane(0, 101)
    picture[29:32, 69:72] = 255  # centre (70, 30)
    for seed in range(10):
        out, matrix = augment(picture, np.random.default_rng(seed), dataclasses.replace(STILL, rotation=10, zoom=0.2))
        rows, columns = np.indices(out.shape[:2])
        weight = out[..., 0] / out.sum()
        assert_allclose([(weight * columns).sum(), (weight * rows).sum()], matrix @ [70, 30, 1], atol=0.3)


def test_mix_blends_pictures_and_labels_in_the_same_share_and_keeps_the_larger_one_first():
    pictures = np.stack([plane(0, 8), plane(200, 8), plane(100, 8)])
    labels = np.array([[0, 1], [1, 0], [1, np.nan]], np.float32)
    blend, mixed = mix(pictures, labels, np.random.default_rng(3), 1.0)

    share = 1 - mixed[0, 0]  # 0 in its own picture, 1 in the other
    assert share >= 0.5
    assert_allclose(blend[0], 100 * (1 - share), atol=0.51)
    assert np.isnan(mixed[0, 1])
    assert np.isnan(mixed[2, 1])
    assert_allclose(blend[1], 200 * mixed[1, 0], atol=0.51)
    assert mixed[1, 0] + mixed[1, 1] == pytest.approx(1.0)


def test_mix_draws_shares_of_the_beta_distribution():
    labels = np.tile(np.array([[1.0], [0.0]], np.float32), (2000, 1))
    _, mixed = mix(np.zeros((4000, 1, 1, 1), np.uint8), labels, np.random.default_rng(0), 0.4)
    share = np.where(labels[:, 0] == 1, mixed[:, 0], 1 - mixed[:, 0])
    drawn = np.random.default_rng(9).beta(0.4, 0.4, 100_000)

    assert_allclose(
        np.quantile(share, [0.25, 0.5, 0.75]), np.quantile(np.maximum(drawn, 1 - drawn), [0.25, 0.5, 0.75]), atol=0.02
    )
