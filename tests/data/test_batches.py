"""Batches, their order, and augmentation."""

import cv2
import numpy as np
import pytest
from cached_splits import make_cached

from cxr.data.batches import AugmentationLimits, RadiographBatches, affine_matrix, augment, prepare_ahead

STILL = AugmentationLimits(rotation=0, shift=0, zoom=0, brightness=0, contrast=0)


def test_training_batches_shuffle_all_rows_and_keep_labels_with_their_radiographs():
    cached = make_cached(10)
    batches = RadiographBatches(cached, 3, training=True, seed=4, limits=STILL)
    assert len(batches) == 3  # the incomplete batch is left out
    seen = np.concatenate([batches.rows(index) for index in range(4)])
    assert sorted(seen) == list(range(10))
    assert list(seen) != list(range(10))
    for index in range(3):
        model_inputs, labels = batches[index]
        np.testing.assert_array_equal(model_inputs, cached.model_inputs[batches.rows(index)])
        np.testing.assert_array_equal(labels, cached.split.labels[batches.rows(index)])


def test_evaluation_batches_are_in_order_complete_and_never_augmented():
    cached = make_cached(7)
    batches = RadiographBatches(cached, 3, training=False, seed=4)
    model_inputs = np.concatenate([batches[index][0] for index in range(len(batches))])
    np.testing.assert_array_equal(model_inputs, cached.model_inputs)


@pytest.mark.fault("C23")
def test_batch_larger_than_the_split_is_the_whole_split():
    batches = RadiographBatches(make_cached(2), 16, training=True)
    assert len(batches) == 1
    assert len(batches[0][0]) == 2


def test_batches_depend_on_seed_epoch_and_row_alone():
    cached = make_cached(8)

    def content(seed, epoch, index):
        batches = RadiographBatches(cached, 4, training=True, seed=seed)
        batches.set_epoch(epoch)
        return batches[index][0]

    np.testing.assert_array_equal(content(1, 2, 1), content(1, 2, 1))
    assert not np.array_equal(content(1, 2, 1), content(2, 2, 1))
    assert not np.array_equal(content(1, 2, 1), content(1, 3, 1))
    # The same row in another batch, of another size, looks the same.
    small = RadiographBatches(cached, 1, training=True, seed=1)
    large = RadiographBatches(cached, 4, training=True, seed=1)
    for index in range(8):
        np.testing.assert_array_equal(small[index][0][0], large[index // 4][0][index % 4])


@pytest.mark.parametrize("start", [0, 3, 8])
def test_prepare_ahead_gives_the_same_batches(start):
    batches = RadiographBatches(make_cached(16), 2, training=True, seed=1)
    ahead = list(prepare_ahead(batches, start))
    assert [index for index, _ in ahead] == list(range(start, 8))
    for index, (model_inputs, _) in ahead:
        np.testing.assert_array_equal(model_inputs, batches[index][0])


def test_prepare_ahead_passes_errors_on():
    batches = RadiographBatches(make_cached(4), 2, training=True)
    batches.cached.split.labels.resize((1, 2), refcheck=False)
    with pytest.raises(IndexError):
        list(prepare_ahead(batches, 0))


def dot_at(x, y, size=101):
    picture = np.zeros((size, size), np.float32)
    cv2.circle(picture, (x, y), 3, 255, -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.uint8)[..., np.newaxis]


def centre_of(picture):
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    weights = picture[..., 0].astype(float)
    return (x * weights).sum() / weights.sum(), (y * weights).sum() / weights.sum()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (70, 40)),
        ({"shift": (5, -8)}, (75, 32)),
        ({"angle": 90}, (40, 30)),  # (20, -10) from the middle, counter-clockwise: (-10, -20)
        ({"zoom": 2}, (90, 30)),
        ({"angle": 90, "zoom": 0.5, "shift": (1, 2)}, (46, 42)),
    ],
)
def test_affine_matrix_moves_a_dot_where_the_hand_says(change, expected):
    matrix = affine_matrix(101, **({"angle": 0, "shift": (0, 0), "zoom": 1} | change))
    np.testing.assert_allclose(matrix @ [70, 40, 1], expected, atol=1e-9)
    moved = cv2.warpAffine(dot_at(70, 40), matrix, (101, 101))[..., np.newaxis]
    np.testing.assert_allclose(centre_of(moved), expected, atol=0.3)


def test_augmentation_stays_within_its_limits_and_never_flips():
    """Three dots at the corners of a scalene triangle: their signed area would change its sign with a flip."""
    limits = AugmentationLimits(rotation=10, shift=0.05, zoom=0.1, brightness=0, contrast=0)
    dots = [(30, 30), (70, 35), (35, 75)]
    shown = []
    for draw in range(60):
        corners = [centre_of(augment(dot_at(*dot), np.random.default_rng(draw), limits)[0]) for dot in dots]
        (ax, ay), (bx, by), (cx, cy) = corners
        area = ((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) / 2
        angle = np.degrees(np.arctan2(by - ay, bx - ax) - np.arctan2(5, 40))
        shown.append(
            (area / 887.5, angle, *np.mean(corners, axis=0))
        )  # 887.5: the area by hand, 40 x 45 - 5 x 5 over 2
    area, angle, x, y = np.transpose(shown)
    assert (area > 0).all()
    assert area.min() > 1.1**-2 - 0.02
    assert area.max() < 1.1**2 + 0.02
    assert 7 < np.abs(angle).max() < 10.5
    assert angle.min() < 0 < angle.max()
    assert np.abs(x - 45).max() < 12
    assert np.abs(y - 140 / 3).max() < 12


def test_augmentation_changes_brightness_and_contrast_as_one_line_through_the_grey_levels():
    limits = AugmentationLimits(rotation=0, shift=0, zoom=0, brightness=20, contrast=0.2)
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))[..., np.newaxis]
    lines = []
    for draw in range(40):
        out = augment(ramp, np.random.default_rng(draw), limits)[0][0, :, 0].astype(float)
        inside = (out > 0) & (out < 255)
        slope, offset = np.polyfit(np.arange(256)[inside], out[inside], 1)
        np.testing.assert_allclose(out[inside], (slope * np.arange(256) + offset)[inside], atol=0.6)
        lines.append((slope, slope * 127.5 + offset - 127.5))
    slopes, shifts = np.transpose(lines)
    assert 0.8 - 0.01 < slopes.min() < 0.9 < 1.1 < slopes.max() < 1.2 + 0.01
    assert -20.5 < shifts.min() < -10 < 10 < shifts.max() < 20.5


def test_augmentation_leaves_its_input_alone():
    picture = dot_at(40, 40)
    before = picture.copy()
    augment(picture, np.random.default_rng(0), AugmentationLimits())
    np.testing.assert_array_equal(picture, before)
