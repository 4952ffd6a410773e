"""The cache of decoded radiographs, the batches and the augmentation."""

import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from cached_splits import FINDINGS, SIZE, count_decodings, make_split

from cxr.data import cache
from cxr.data.cache import cache_split
from cxr.data.labels import Split
from cxr.imaging.radiograph import ImageError, decode_radiograph, to_model_input


@pytest.fixture
def split(image_dir):
    return make_split([f"{k}.png" for k in (3, 1, 4, 0, 2)])


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
from cxr.decoding import file_decoder
import numpy as np

def decode_slowly(data, decode=file_decoder.decode_with_notices):
    time.sleep(0.01)
    print("one", flush=True)
    return decode(data)

file_decoder.decode_with_notices = decode_slowly
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


@pytest.mark.fault("T09")
def test_unusable_radiographs_are_all_named(split, image_dir, tmp_path):
    (image_dir / "1.png").write_bytes(b"no picture")
    (image_dir / "2.png").write_bytes((image_dir / "2.png").read_bytes()[:100])
    with pytest.raises(ImageError, match=r"train: 2 of 5 radiographs cannot be used") as caught:
        cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert "'1.png': This is not a PNG, JPEG or DICOM file" in str(caught.value)
    assert "'2.png'" in str(caught.value)
    (image_dir / "1.png").unlink()
    with pytest.raises(ImageError, match=r"'1.png': cannot be read: No such file"):
        cache_split(split, image_dir, SIZE, tmp_path / "cache")


@pytest.mark.fault("T06")
def test_full_disk_is_found_before_decoding(split, image_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=r"the cache needs 0 MB, 0 MB are free. Make room, or use --image-size"):
        cache_split(split, image_dir, SIZE, tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*.npy")) == []
