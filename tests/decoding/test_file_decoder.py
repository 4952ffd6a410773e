"""What one file of a folder may take is bounded, in the check, the cache and gradcam.py, and the others go on."""

import csv
import functools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import radiographs as files
from site_tools import SUPPORT

from cxr.data.cache import cache_split
from cxr.data.checks import check_splits
from cxr.decoding import file_decoder, pool
from cxr.decoding.file_decoder import FileDecoder
from cxr.imaging.dicom_header import read_transfer_syntax
from cxr.imaging.limits import MAX_FILE_BYTES, ImageError
from cxr.imaging.radiograph import decode_with_notices

FAULTY = (sys.executable, str(SUPPORT / "faulty_worker.py"))
PICTURE = files.radiograph()
SECONDS = 3.0


@pytest.fixture
def faulty(monkeypatch):
    """Send what is no PNG to children that break as the first bytes of a file say."""
    decoder = functools.partial(pool.Decoder, command=FAULTY)
    monkeypatch.setattr(file_decoder, "Decoder", decoder)
    monkeypatch.setattr(file_decoder, "needs_codec", lambda data: not data.startswith(b"\x89PNG"))
    monkeypatch.setattr(FileDecoder.__init__, "__defaults__", (SECONDS,))


@pytest.mark.parametrize("syntax", [files.RLE, files.JPEG_BASELINE, files.JPEG_LS, files.JPEG_2000])
@pytest.mark.fault("I90")
def test_a_file_gives_the_same_picture_in_a_child_and_in_a_thread(syntax):
    stream = files.pillow_bytes(PICTURE)
    lossy = files.dicom_encapsulated(stream, PICTURE, 8, syntax)
    data = lossy if syntax == files.JPEG_BASELINE else files.dicom_compressed(PICTURE, 8, syntax, ViewPosition="LL")
    with FileDecoder() as decoder:
        found, expected = decoder.decode(data), decode_with_notices(data)
        np.testing.assert_array_equal(found.radiograph, expected.radiograph)
        assert found[1:] == expected[1:]
        assert (decoder._children is None) == (syntax == files.JPEG_BASELINE)


@pytest.mark.fault("I90")
@pytest.mark.parametrize("data", [files.png(PICTURE), files.pillow_bytes(PICTURE), files.dicom(PICTURE), b"", b"text"])
def test_no_child_is_started_for_what_a_header_bounds(data):
    with FileDecoder() as decoder:
        try:
            expected = decode_with_notices(data).radiograph
        except ImageError as error:
            with pytest.raises(ImageError) as found:
                decoder.decode(data)
            assert str(found.value) == str(error)
        else:
            np.testing.assert_array_equal(decoder.decode(data).radiograph, expected)
        assert decoder._children is None


@pytest.mark.fault("I90")
def test_a_hang_a_crash_and_a_memory_bomb_cost_one_file_each(faulty):
    bad = {b"HANG": "took too long", b"ABORT": "broke the program", b"MEMORY": "too much memory"}
    good = [files.png(files.radiograph(seed=seed)) for seed in range(4)]
    with FileDecoder() as decoder, ThreadPoolExecutor(len(bad) + len(good)) as threads:
        results = {data: threads.submit(decoder.decode, data) for data in (*bad, *good)}
        for data, words in bad.items():
            with pytest.raises(ImageError, match=words) as error:
                results[data].result()
            assert error.value.code == "too_costly"
            assert "at most 3 seconds and 1 GiB are allowed" in str(error.value)
        for data in good:
            np.testing.assert_array_equal(results[data].result().radiograph, decode_with_notices(data).radiograph)
    assert all(place.child is None for place in decoder._children._places)


def three_splits(folder, hostile):
    """Write three splits; the training split holds the hostile file beside two good ones."""
    (folder / "images").mkdir()
    names = {"train": ("good.png", "bad.dcm", "also.png"), "val": ("v.png",), "test": ("t.png",)}
    for seed, (split, images) in enumerate(names.items()):
        rows = [["Image", "Edema", "Patientid"], *([name, k % 2, f"{split}{k}"] for k, name in enumerate(images))]
        for name in images:
            content = hostile if name == "bad.dcm" else files.png(files.radiograph(seed=seed * 10 + len(name)))
            (folder / "images" / name).write_bytes(content)
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return [folder / f"{split}.csv" for split in names]


@pytest.mark.fault("I90")
def test_check_and_cache_name_the_file_that_hangs(faulty, tmp_path):
    paths = three_splits(tmp_path, b"HANG")
    with FileDecoder() as decoder:
        check = check_splits(*paths, tmp_path / "images", decode=decoder.decode)
    (fault,) = check.faults
    assert (fault.kind, fault.line) == ("unreadable image", 3)
    assert "'bad.dcm' cannot be read: Reading it took too long" in fault.message
    with pytest.raises(ImageError, match=r"1 of 3 radiographs cannot be used\.\n'bad\.dcm': Reading it took too long"):
        cache_split(check.parts["train"], tmp_path / "images", 32, tmp_path / "cache")


@pytest.mark.fault("I95")
def test_check_and_cache_do_not_blame_a_file_for_a_decoder_that_does_not_start(faulty, monkeypatch, tmp_path):
    broken = (sys.executable, "-c", "raise SystemExit(1)")
    monkeypatch.setattr(file_decoder, "Decoder", functools.partial(pool.Decoder, command=broken))
    paths = three_splits(tmp_path, b"GOOD")
    words = "the program that reads it does not start; free memory"
    with FileDecoder() as decoder:
        with pytest.raises(OSError, match=words):
            decoder.decode(b"GOOD")
        check = check_splits(*paths, tmp_path / "images", decode=decoder.decode)
    (fault,) = check.faults
    assert f"'bad.dcm' cannot be read: cannot be read ({words}" in fault.message
    with pytest.raises(ImageError, match=rf"1 of 3 radiographs cannot be used\.\n'bad\.dcm': cannot be read: {words}"):
        cache_split(check.parts["train"], tmp_path / "images", 32, tmp_path / "cache")


@pytest.mark.fault("I90")
def test_a_file_of_any_length_is_refused_before_it_is_read(tmp_path):
    paths = three_splits(tmp_path, b"")
    with (tmp_path / "images" / "bad.dcm").open("wb") as file:
        file.truncate(200 * MAX_FILE_BYTES)  # takes no room on the disk
    (fault,) = check_splits(*paths, tmp_path / "images", decode=decode_with_notices).faults
    assert "at most 100 MiB are read" in fault.message


@pytest.mark.fault("I94")
@pytest.mark.parametrize("num_bytes", [2, 2**20 + 2, 3 * 2**20])
def test_a_codec_behind_a_long_start_of_the_file_is_decoded_in_a_child(num_bytes):
    plain = files.dicom_compressed(PICTURE, 8, files.JPEG_2000)
    start = bytes(128) + b"DICM" + files.element((2, 1), b"OB", bytes(num_bytes))
    start += files.element((2, 0x10), b"UI", files.JPEG_2000.encode())
    data = start + plain[read_transfer_syntax(plain)[1] :]
    with FileDecoder() as decoder:
        np.testing.assert_array_equal(decoder.decode(data).radiograph, decode_with_notices(plain).radiograph)
        assert decoder._children is not None


@pytest.mark.fault("I91")
@pytest.mark.parametrize("levels", [0, 5])
def test_a_small_file_that_asks_for_millions_of_parts_is_refused(levels):
    stream = files.j2k_of_tiny_precincts(1000, levels)
    with FileDecoder() as decoder, pytest.raises(ImageError) as error:
        decoder.decode(files.dicom_encapsulated(stream, np.zeros((1000, 1000), np.uint8), 8, files.JPEG_2000))
    assert error.value.code == "too_costly"
