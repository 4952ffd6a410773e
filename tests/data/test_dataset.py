"""The cache of decoded radiographs, the batches and the augmentation."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cxr.data import cache
from cxr.data.augmentation import AugmentationLimits, affine_matrix, augment
from cxr.data.batches import RadiographBatches, prepare_ahead
from cxr.data.cache import CachedSplit, cache_split
from cxr.data.labels import Split
from cxr.imaging.radiograph import ImageError, decode_radiograph, to_model_input

FINDINGS = ("Mass", "Edema")
SIZE = 32
STILL = AugmentationLimits(rotation=0, shift=0, zoom=0, brightness=0, contrast=0)


def make_split(names, name="train"):
    labels = np.random.default_rng(len(names)).integers(0, 2, (len(names), 2)).astype(np.float32)
    labels[0, 1] = np.nan
    return Split(name, tuple(names), tuple(f"p{k}" for k in range(len(names))), labels, FINDINGS)


@pytest.fixture
def image_dir(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(5):
        smooth = cv2.resize(rng.integers(0, 256, (5, 5), np.uint8), (90, 80), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(tmp_path / "images" / f"{k}.png"), smooth)
    return tmp_path / "images"


@pytest.fixture
def split(image_dir):
    return make_split([f"{k}.png" for k in (3, 1, 4, 0, 2)])


def make_cached(num_images, size=SIZE, seed=0):
    model_inputs = np.random.default_rng(seed).integers(0, 256, (num_images, size, size, 1), np.uint8)
    return CachedSplit(make_split([f"{k}.png" for k in range(num_images)]), model_inputs, "test")


def count_decodings(monkeypatch, image_dir):
    names = {path.read_bytes(): path.name for path in image_dir.iterdir()}
    decoded = []

    def decode(data):
        decoded.append(names.get(data, "changed"))
        return decode_radiograph(data)

    monkeypatch.setattr(cache, "decode_radiograph", decode)
    return decoded


def test_cache_holds_what_the_app_would_see_in_the_splits_order(split, image_dir, tmp_path):
    cached = cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert (len(cached), cached.image_size, cached.model_inputs.dtype) == (5, SIZE, np.uint8)
    for row, name in enumerate(split.images):
        expected = to_model_input(decode_radiograph((image_dir / name).read_bytes()), SIZE)
        np.testing.assert_array_equal(cached.model_inputs[row], expected)


def test_cache_decodes_once(split, image_dir, tmp_path, monkeypatch):
    names = count_decodings(monkeypatch, image_dir)
    first = cache_split(split, image_dir, SIZE, tmp_path / "cache")
    second = cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert sorted(names) == sorted(split.images)
    assert first.fingerprint == second.fingerprint
    np.testing.assert_array_equal(first.model_inputs, second.model_inputs)


def test_cache_is_built_again_when_a_file_changes(split, image_dir, tmp_path, monkeypatch):
    first = cache_split(split, image_dir, SIZE, tmp_path / "cache")
    names = count_decodings(monkeypatch, image_dir)
    picture = cv2.imread(str(image_dir / "4.png"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(image_dir / "4.png"), 255 - picture)
    os.utime(image_dir / "4.png", ns=(1, 1))
    second = cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert names == ["changed"]  # the others are known by their content
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(
        second.model_inputs[2], to_model_input(decode_radiograph((image_dir / "4.png").read_bytes()), SIZE)
    )
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3


def test_caches_of_other_splits_and_sizes_are_kept(split, image_dir, tmp_path):
    cache_split(split, image_dir, SIZE, tmp_path / "cache")
    cache_split(split, image_dir, 2 * SIZE, tmp_path / "cache")
    cache_split(make_split(split.images, "val"), image_dir, SIZE, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 9


def test_touched_but_equal_files_keep_the_fingerprint(split, image_dir, tmp_path):
    first = cache_split(split, image_dir, SIZE, tmp_path / "cache")
    os.utime(image_dir / "4.png", ns=(1, 1))
    assert cache_split(split, image_dir, SIZE, tmp_path / "cache").fingerprint == first.fingerprint


def test_fingerprint_depends_on_labels_and_order(split, image_dir, tmp_path):
    fingerprints = {cache_split(split, image_dir, SIZE, tmp_path / "cache").fingerprint}
    changed = Split("train", split.images, split.patients, 1 - split.labels, FINDINGS)
    fingerprints.add(cache_split(changed, image_dir, SIZE, tmp_path / "cache").fingerprint)
    turned = Split("train", split.images[::-1], split.patients, split.labels, FINDINGS)
    fingerprints.add(cache_split(turned, image_dir, SIZE, tmp_path / "cache").fingerprint)
    assert len(fingerprints) == 3


def test_killed_build_goes_on_and_damaged_rows_are_decoded_again(split, image_dir, tmp_path, monkeypatch):
    whole = cache_split(split, image_dir, SIZE, tmp_path / "cache").model_inputs.copy()
    pixels_path = next(path for path in (tmp_path / "cache").glob("*.npy") if path.name.count(".") == 1)
    digests_path = pixels_path.with_suffix(".rows.npy")
    pixels, digests = np.load(pixels_path, mmap_mode="r+"), np.load(digests_path, mmap_mode="r+")
    pixels[3:], digests[3:] = 0, 0  # as a build leaves it that was killed after three rows
    pixels[1, 0, 0] ^= 1  # and a bit turned over on the disk
    pixels.flush()
    digests.flush()
    del pixels, digests
    names = count_decodings(monkeypatch, image_dir)
    np.testing.assert_array_equal(cache_split(split, image_dir, SIZE, tmp_path / "cache").model_inputs, whole)
    assert sorted(names) == sorted(split.images[row] for row in (1, 3, 4))
    pixels_path.write_bytes(pixels_path.read_bytes()[:200])
    np.testing.assert_array_equal(cache_split(split, image_dir, SIZE, tmp_path / "cache").model_inputs, whole)


SLOW_BUILD = """
import sys, time
from cxr.data import cache
from cxr.data.labels import Split
import numpy as np

def decode_slowly(data, decode=cache.decode_radiograph):
    time.sleep(0.01)
    print("one", flush=True)
    return decode(data)

cache.decode_radiograph = decode_slowly
names = tuple(sys.argv[2:])
split = Split("train", names, names, np.zeros((len(names), 2), np.float32), ("Mass", "Edema"))
cache.cache_split(split, sys.argv[1], 32, sys.argv[1] + "/../cache")
"""


def test_build_killed_by_the_system_goes_on(image_dir, tmp_path, monkeypatch):
    names = [f"{k}-{copy}.png" for copy in range(40) for k in range(5)]
    for name in names:
        os.link(image_dir / f"{name[0]}.png", image_dir / name)
    build = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(image_dir), *names], stdout=subprocess.PIPE)
    with build:
        for _ in range(60):
            assert build.stdout.readline()
        build.kill()
    monkeypatch.setattr(cache, "BLOCK_BYTES", 7 * SIZE * SIZE)  # blocks whose ends are no multiple of anything
    split = Split("train", tuple(names), tuple(names), np.zeros((len(names), 2), np.float32), FINDINGS)
    decoded = count_decodings(monkeypatch, image_dir)
    cached = cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert 0 < len(decoded) <= len(names) - 60 + os.cpu_count()  # of the 60, only those at work when the kill came
    for row, name in enumerate(names):
        expected = to_model_input(decode_radiograph((image_dir / f"{name[0]}.png").read_bytes()), SIZE)
        np.testing.assert_array_equal(cached.model_inputs[row], expected)


def test_T09_unusable_radiographs_are_all_named(split, image_dir, tmp_path):
    (image_dir / "1.png").write_bytes(b"no picture")
    (image_dir / "2.png").write_bytes((image_dir / "2.png").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"train: 2 of 5 radiographs cannot be used") as caught:
        cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert "'1.png': This is not a PNG, JPEG or DICOM file" in str(caught.value)
    assert "'2.png'" in str(caught.value)
    (image_dir / "1.png").unlink()
    with pytest.raises(ImageError, match=r"'1.png': cannot be read: No such file"):
        cache_split(split, image_dir, SIZE, tmp_path / "cache")


def test_T06_full_disk_is_found_before_decoding(split, image_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=r"the cache needs 0 MB, 0 MB are free. Make room, or use --image-size"):
        cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.npy")) == []


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


def test_C23_batch_larger_than_the_split_is_the_whole_split():
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
