"""The cache holds the pixels of the files that lie there now, whatever their names, sizes and times say."""

import os
import shutil
import time

import cv2
import numpy as np
import pytest

from cxr.data import cache
from cxr.data.cache import cache_split
from cxr.data.labels import Split
from cxr.decoding import file_decoder
from cxr.imaging.radiograph import ImageError, decode_radiograph, to_model_input

SIZE = 32
NAMES = ("a.png", "b.png", "c.png")
LONG_AGO = 1_500_000_000 * 10**9  # nanoseconds; as an archive or a pseudonymiser sets times


def split_of(names=NAMES, name="train"):
    return Split(name, tuple(names), tuple(names), np.zeros((len(names), 1), np.float32), ("Mass",))


def write_set(folder, seed):
    """Write radiographs that have names, sizes and times in common with those of every other seed."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in NAMES:
        small = rng.integers(0, 256, (6, 6), dtype=np.uint8)
        picture = cv2.resize(small, (96, 80), interpolation=cv2.INTER_CUBIC)
        data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
        (folder / name).write_bytes(data)
        os.utime(folder / name, ns=(LONG_AGO, LONG_AGO))
    assert len({(folder / name).stat().st_size for name in NAMES}) == 1
    return folder


def pixels_of(folder, names=NAMES):
    return np.stack([to_model_input(decode_radiograph((folder / name).read_bytes()), SIZE) for name in names])


@pytest.fixture
def watched(monkeypatch):
    """Count what is read and what is decoded."""
    counts = {"read": 0, "decoded": 0}

    def count(kind, function):
        def counted(*arguments):
            counts[kind] += 1
            return function(*arguments)

        return counted

    monkeypatch.setattr(cache, "read_file", count("read", cache.read_file))
    decode = count("decoded", file_decoder.decode_with_notices)
    monkeypatch.setattr(file_decoder, "decode_with_notices", decode)
    return counts


@pytest.fixture
def settled(monkeypatch):
    """Trust entries at once: the files of a test are younger than a real set's."""
    monkeypatch.setattr(cache, "SETTLED_NS", -(10**18))


@pytest.mark.fault("C90")
def test_another_folder_with_the_same_names_sizes_and_times_is_another_set(tmp_path, settled):
    one, two = write_set(tmp_path / "one/images", 1), write_set(tmp_path / "two/images", 2)
    for folder in (one, two, one):
        cached = cache_split(split_of(), folder, SIZE, tmp_path / "cache")
        np.testing.assert_array_equal(cached.model_inputs, pixels_of(folder))


@pytest.mark.fault("C90")
@pytest.mark.parametrize("how", ["over it", "in place", "moved", "linked folder"])
def test_a_corrected_set_in_the_place_of_the_old_one_is_decoded(tmp_path, how, settled):
    folder, corrected = write_set(tmp_path / "images", 1), write_set(tmp_path / "corrected", 2)
    place = folder
    if how == "linked folder":
        place = tmp_path / "current"
        place.symlink_to(folder)
    first = cache_split(split_of(), place, SIZE, tmp_path / "cache")
    if how == "over it":
        shutil.copytree(corrected, folder, dirs_exist_ok=True)
    elif how == "in place":
        with (folder / "b.png").open("r+b") as file:
            file.write((corrected / "b.png").read_bytes())
        os.utime(folder / "b.png", ns=(LONG_AGO, LONG_AGO))
    elif how == "moved":
        (corrected / "b.png").replace(folder / "b.png")
    else:
        place.unlink()
        place.symlink_to(corrected)
    second = cache_split(split_of(), place, SIZE, tmp_path / "cache")
    np.testing.assert_array_equal(second.model_inputs, pixels_of(place))
    assert second.fingerprint != first.fingerprint


@pytest.mark.fault("C90")
def test_a_file_that_changes_within_the_clocks_step_is_read_again(tmp_path, watched):
    """Without `settled`: the entry of a file that was written just now is not trusted."""
    folder = write_set(tmp_path / "images", 1)
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    assert watched == {"read": 6, "decoded": 3}


def test_unchanged_files_are_not_read_and_touched_ones_not_decoded(tmp_path, watched, settled):
    folder = write_set(tmp_path / "images", 1)
    for _ in range(3):
        cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    assert watched == {"read": 3, "decoded": 3}
    for name in NAMES:
        (folder / name).touch()
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    assert watched == {"read": 6, "decoded": 3}
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    assert watched == {"read": 6, "decoded": 3}


@pytest.mark.fault("C91")
def test_sets_used_in_turn_do_not_evict_each_other(tmp_path, watched, settled):
    folders = [write_set(tmp_path / f"{seed}/images", seed) for seed in range(4)]
    for _ in range(3):
        for folder in folders:
            cached = cache_split(split_of(), folder, SIZE, tmp_path / "cache")
            np.testing.assert_array_equal(cached.model_inputs, pixels_of(folder))
    assert watched["decoded"] == 4 * len(NAMES)


@pytest.mark.fault("C91")
@pytest.mark.parametrize("limit", ["number", "bytes", "room"])
def test_the_caches_used_longest_ago_make_room(tmp_path, watched, monkeypatch, settled, limit):
    folders = [write_set(tmp_path / f"{seed}/images", seed) for seed in range(4)]
    for folder in folders[:3]:
        cache_split(split_of(), folder, SIZE, tmp_path / "cache")
        time.sleep(0.02)
    one_cache = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.npy")) / 3
    cache_split(split_of(name="val"), folders[0], SIZE, tmp_path / "cache")
    cache_split(split_of(), folders[0], SIZE, tmp_path / "cache")  # used last
    monkeypatch.setattr(cache, "NUM_KEPT", 3 if limit == "number" else 8)
    monkeypatch.setattr(cache, "KEPT_BYTES", 2.5 * one_cache if limit == "bytes" else 10**9)
    if limit == "room":
        free = iter([cache.HEADROOM_BYTES + len(NAMES) * SIZE**2 - one_cache / 2])
        rest = cache.HEADROOM_BYTES + 10**6
        usage = lambda path: type("Usage", (), {"free": next(free, rest)})  # noqa: E731
        monkeypatch.setattr(cache.shutil, "disk_usage", usage)
    cache_split(split_of(), folders[3], SIZE, tmp_path / "cache")
    watched["decoded"] = 0
    monkeypatch.setattr(cache, "NUM_KEPT", 8)
    monkeypatch.setattr(cache, "KEPT_BYTES", 10**9)
    for name, folder in (("train", 3), ("train", 0), ("train", 2), ("val", 0)):
        cache_split(split_of(name=name), folders[folder], SIZE, tmp_path / "cache")
    assert watched["decoded"] == 0
    cache_split(split_of(), folders[1], SIZE, tmp_path / "cache")
    assert watched["decoded"] == len(NAMES)


@pytest.mark.fault("C90")
def test_old_pixels_beside_a_new_record_are_not_taken(tmp_path, settled):
    """A power cut may leave any part of a row older than the others."""
    folder, other = write_set(tmp_path / "images", 1), write_set(tmp_path / "other", 2)
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    records = {path.name: path.read_bytes() for path in (tmp_path / "cache").glob("*.npy")}
    shutil.copytree(other, folder, dirs_exist_ok=True)
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    for name, old in records.items():
        if not name.endswith(".files.rows.npy"):
            (tmp_path / "cache" / name).write_bytes(old)
    cached = cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    np.testing.assert_array_equal(cached.model_inputs, pixels_of(folder))


def test_a_file_that_vanished_is_named(tmp_path, settled):
    folder = write_set(tmp_path / "images", 1)
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    (folder / "b.png").unlink()
    with pytest.raises(ImageError, match=r"1 of 3 radiographs cannot be used.\n'b.png': cannot be read: No such file"):
        cache_split(split_of(), folder, SIZE, tmp_path / "cache")


@pytest.mark.fault("C92")
@pytest.mark.parametrize("how", ["content", "gone and back", "another size"])
def test_a_run_keeps_the_pixels_that_it_was_given(tmp_path, settled, how):
    """Another run, whose images have changed meanwhile, must not exchange them under the first one's hands."""
    folder, corrected = write_set(tmp_path / "images", 1), write_set(tmp_path / "corrected", 2)
    before = pixels_of(folder)
    first = cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    if how == "gone and back":
        kept = (folder / "b.png").read_bytes()
        (folder / "b.png").unlink()
        with pytest.raises(ImageError):
            cache_split(split_of(), folder, SIZE, tmp_path / "cache")
        (folder / "b.png").write_bytes(kept)
    else:
        shutil.copy(corrected / "b.png", folder / "b.png")
    size = SIZE // 2 if how == "another size" else SIZE
    second = cache_split(split_of(), folder, size, tmp_path / "cache")
    np.testing.assert_array_equal(first.model_inputs, before)
    if size == SIZE:
        np.testing.assert_array_equal(second.model_inputs, pixels_of(folder))


@pytest.mark.fault("C92")
def test_the_cache_of_a_run_that_is_over_is_changed_in_place(tmp_path, settled):
    folder, corrected = write_set(tmp_path / "images", 1), write_set(tmp_path / "corrected", 2)
    cached = cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    (path,) = (one for one in (tmp_path / "cache").glob("*.npy") if ".rows" not in one.name)
    inode = path.stat().st_ino
    cache_split(split_of(), folder, SIZE, tmp_path / "cache")  # unchanged: the same file, though it is in use
    assert path.stat().st_ino == inode
    del cached
    shutil.copy(corrected / "b.png", folder / "b.png")
    again = cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    assert path.stat().st_ino == inode
    np.testing.assert_array_equal(again.model_inputs, pixels_of(folder))


@pytest.mark.fault("C92")
def test_a_file_that_is_written_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    folder, corrected = write_set(tmp_path / "images", 1), write_set(tmp_path / "corrected", 2)
    plain, torn = cache.read_file, []

    def torn_read(path):
        data = plain(path)
        if path.name == "b.png" and not torn:  # the first half, before it is written
            torn.append(path)
            shutil.copy(corrected / "b.png", path)
        return data

    monkeypatch.setattr(cache, "read_file", torn_read)
    cached = cache_split(split_of(), folder, SIZE, tmp_path / "cache")
    np.testing.assert_array_equal(cached.model_inputs, pixels_of(folder))

    def ever_written(path):
        data = plain(path)
        os.utime(path)
        return data

    monkeypatch.setattr(cache, "read_file", ever_written)
    with pytest.raises(ImageError, match="changes while it is read"):
        cache_split(split_of(name="val"), folder, SIZE, tmp_path / "cache")
