"""Compressed DICOM pixels against the native ones, and codestreams that contradict their header."""

import struct
import tracemalloc
from io import BytesIO

import numpy as np
import pydicom
import pytest
import radiographs as files
from broken_pictures import error_code
from dicom_parts import samples_of
from PIL import Image
from pydicom.pixels import get_decoder

from cxr.imaging import dicom_pixels
from cxr.imaging.radiograph import ImageError, decode_radiograph

PICTURE = files.radiograph()


needs_libjpeg = pytest.mark.skipif(
    "pylibjpeg" not in get_decoder(files.JPEG_LOSSLESS).available_plugins, reason="pylibjpeg-libjpeg is optional"
)


# --- compressed pixels -----------------------------------------------------------------------------------------------


@pytest.mark.fault("I30")
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [files.RLE, files.JPEG_LS, files.JPEG_2000])
def test_lossless_compression_changes_nothing(bits, syntax):
    samples = samples_of(bits)
    np.testing.assert_array_equal(
        decode_radiograph(files.dicom_compressed(samples, bits, syntax)), decode_radiograph(files.dicom(samples, bits))
    )


@pytest.mark.fault("I30")
@needs_libjpeg
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_lossless_equals_the_native_picture(bits):
    samples = samples_of(bits)
    data = files.dicom_encapsulated(files.jpeg_lossless(samples, bits), samples, bits, files.JPEG_LOSSLESS)
    np.testing.assert_array_equal(decode_radiograph(data), decode_radiograph(files.dicom(samples, bits)))


@pytest.mark.fault("I30")
def test_jpeg_baseline_equals_the_jpeg_file():
    frame = files.pillow_bytes(PICTURE, quality=80)
    radiograph = decode_radiograph(files.dicom_encapsulated(frame, PICTURE, 8, files.JPEG_BASELINE))
    np.testing.assert_array_equal(radiograph, np.asarray(Image.open(BytesIO(frame))))


@pytest.mark.fault("I30")
def test_a_missing_plugin_is_named_by_its_compression(monkeypatch):
    class Without:
        available_plugins = ()

    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda syntax: Without)
    for syntax, name in ((files.JPEG_LOSSLESS, "JPEG lossless"), (files.JPEG_2000, "JPEG 2000"), (files.RLE, "RLE")):
        data = files.dicom_encapsulated(b"\xff\xd8", PICTURE, 8, syntax)
        with pytest.raises(ImageError, match=f"compressed with {name}, which is not supported") as caught:
            decode_radiograph(data)
        assert (caught.value.code, caught.value.status) == ("dicom_compression", 415)


@pytest.mark.fault("I30")
def test_codestreams_that_contradict_the_header_are_refused():
    small = PICTURE[:64, :64]
    jpeg, colour = files.pillow_bytes(small), files.pillow_bytes(np.dstack([PICTURE] * 3))
    j2k = pydicom.dcmread(BytesIO(files.dicom_compressed(small, 8, files.JPEG_2000)))
    j2k = pydicom.encaps.get_frame(j2k.PixelData, 0, number_of_frames=1)
    bomb = bytearray(files.pillow_bytes(PICTURE))
    at = bomb.index(b"\xff\xc0")
    bomb[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    j2k_bomb = j2k[:8] + struct.pack(">II", 2**31, 2**31) + j2k[16:]
    for syntax, frame in (
        (files.JPEG_BASELINE, jpeg),
        (files.JPEG_BASELINE, colour),
        (files.JPEG_BASELINE, bytes(bomb)),
        (files.JPEG_BASELINE, files.pillow_bytes(PICTURE, progressive=True)),
        (files.JPEG_2000, j2k),
        (files.JPEG_2000, j2k_bomb),
        (files.RLE, struct.pack("<16I", 3, *[0] * 15)),
    ):
        assert error_code(files.dicom_encapsulated(frame, PICTURE, 8, syntax)) == "dicom_header"


@pytest.mark.fault("I30")
def test_an_rle_bomb_is_not_expanded():
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 7_000  # 128 bytes from each 2
    assert error_code(files.dicom_encapsulated(frame, PICTURE, 8, files.RLE)) == "damaged"
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * 2_000_000  # 256 MB
    data = files.dicom_encapsulated(frame, PICTURE, 8, files.RLE)
    tracemalloc.start()
    try:
        assert error_code(data) == "damaged"
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
