"""The decoder for DICOM. Test names carry the ids of the table of image faults."""

import logging
import os
import struct
import tracemalloc
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import radiographs as files
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing, get_decoder
from pydicom.sequence import Sequence
from test_images import assert_whole_or_refused, error_code

from cxr.imaging import dicom_pixels
from cxr.imaging.radiograph import ImageError, decode_radiograph, decode_with_notices

PICTURE = files.radiograph()
NO_WINDOW = "This file gives no display window; brightness and contrast were set from the picture itself."
BAD_WINDOW = "The display window of this file cannot be used; brightness and contrast were set from the picture itself."
BAD_RESCALE = "The rescale values of this file cannot be used and were ignored."
BAD_LUT = "A lookup table of this file cannot be used and was ignored."

needs_libjpeg = pytest.mark.skipif(
    "pylibjpeg" not in get_decoder(files.JPEG_LOSSLESS).available_plugins, reason="pylibjpeg-libjpeg is optional"
)


def twin(bits: int) -> np.ndarray:
    """Return PICTURE with `bits` bits and values between the 8-bit steps."""
    fine = cv2.GaussianBlur(PICTURE.astype(np.float32), (0, 0), 1)
    fine = (fine - fine.min()) / (fine.max() - fine.min())
    return np.rint(fine * (2**bits - 1)).astype(np.uint16)


def to_8_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    return samples * (255 / (2**bits - 1))


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.IMPLICIT])
def test_I27_8_bit_samples_are_taken_as_they_are(syntax):
    radiograph, notices, file_type = decode_with_notices(files.dicom(PICTURE, syntax=syntax))
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert (radiograph.dtype, notices, file_type) == (np.uint8, (), "dicom")


@pytest.mark.parametrize("bits", [10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_I27_samples_with_a_window_over_their_range_equal_the_png(bits, signed):
    samples = twin(bits)
    offset = 2 ** (bits - 1) if signed else 0
    window = {"WindowCenter": 2 ** (bits - 1) - offset, "WindowWidth": 2**bits, "VOILUTFunction": "LINEAR"}
    data = files.dicom(samples.astype(int) - offset, bits, signed, **window)
    radiograph, notices, _ = decode_with_notices(data)
    assert np.abs(radiograph - to_8_bits(samples, bits)).max() <= 0.51
    assert notices == ()
    if bits != 15:
        assert np.abs(radiograph - decode_radiograph(files.png(samples, 16)).astype(int)).max() <= 1


@pytest.mark.parametrize("signed", [False, True])
def test_I27_without_window_the_quantiles_are_black_and_white(signed):
    samples = 3000 + twin(11).astype(int) - (4000 if signed else 0)
    radiograph, notices, _ = decode_with_notices(files.dicom(samples, 14, signed))
    low, high = np.quantile(samples, (0.005, 0.995), method="inverted_cdf")
    expected = np.clip((samples - low) / (high - low), 0, 1) * 255
    assert np.abs(radiograph - expected).max() <= 0.51
    assert notices == (NO_WINDOW,)


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 100, "WindowWidth": 150}])
def test_I28_monochrome1_is_the_inverse_of_monochrome2(bits, window):
    samples = twin(bits)
    upright = decode_radiograph(files.dicom(samples, bits, **window))
    inverted = decode_radiograph(files.dicom(samples, bits, PhotometricInterpretation="MONOCHROME1", **window))
    assert np.abs(upright.astype(int) + inverted - 255).max() <= 1
    negative = decode_radiograph(files.dicom(2**bits - 1 - samples, bits, PhotometricInterpretation="MONOCHROME1"))
    twin_picture = decode_radiograph(files.dicom(samples, bits))
    assert np.abs(negative.astype(int) - twin_picture).max() <= (0 if bits == 8 else 1)


WINDOWS = [(2000, 1500, "LINEAR"), (2000.5, 1500.25, "LINEAR_EXACT"), (1800, 900, "SIGMOID"), (2048, 1, "LINEAR")]


@pytest.mark.parametrize(("centre", "width", "function"), WINDOWS)
def test_I29_window_equals_pydicom_and_the_closed_form(centre, width, function):
    samples = twin(12)
    tags = {"WindowCenter": centre, "WindowWidth": width, "VOILUTFunction": function}
    radiograph = decode_radiograph(files.dicom(samples, 12, **tags))
    dataset = files.dicom_dataset(samples, 12, **tags)
    oracle = apply_windowing(samples, dataset) * (255 / 4095) if width > 1 else np.where(samples > 2047.5, 255, 0)
    assert np.abs(radiograph - oracle).max() <= 0.51
    at = np.unravel_index(np.abs(samples.astype(int) - 2100).argmin(), samples.shape)
    value = float(samples[at])
    closed = {  # PS3.3 C.11.2.1.2, written out
        "LINEAR": (value - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5,
        "LINEAR_EXACT": (value - centre) / width + 0.5,
        "SIGMOID": 1 / (1 + np.exp(-4 * (value - centre) / width)),
    }[function]
    assert abs(radiograph[at] - 255 * min(max(closed, 0), 1)) <= 0.51


def test_I29_the_first_of_several_windows_is_taken():
    one = decode_radiograph(files.dicom(twin(12), 12, WindowCenter=2000, WindowWidth=1500))
    two = decode_radiograph(files.dicom(twin(12), 12, WindowCenter=[2000, 50], WindowWidth=[1500, 10]))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("slope", "intercept"), [(2.5, -1000), (-1, 4095), (0.001, 0)])
def test_I29_rescale_comes_before_the_window(slope, intercept):
    samples = twin(12)
    values = samples.astype(float) * slope + intercept
    centre, width = float(np.median(values)), float(np.ptp(values) / 2)
    tags = {"RescaleSlope": slope, "RescaleIntercept": intercept, "VOILUTFunction": "LINEAR_EXACT"}
    data = files.dicom(samples, 12, WindowCenter=f"{centre:.10g}", WindowWidth=f"{width:.10g}", **tags)
    oracle = np.clip((values - centre) / width + 0.5, 0, 1) * 255
    radiograph, notices, _ = decode_with_notices(data)
    assert np.abs(radiograph - oracle).max() <= 0.51
    assert notices == ()


def lut_item(entries: np.ndarray, first: int, bits: int = 16, signed: bool = False) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, "SS" if signed else "US", [len(entries), first, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return item


def test_I29_luts_equal_pydicom():
    samples = twin(12)
    curve = np.rint(65535 * (np.arange(3000) / 2999) ** 0.5).astype(np.uint16)
    luts = {"VOILUTSequence": Sequence([lut_item(curve, 500)]), "WindowCenter": 1, "WindowWidth": 2}
    dataset = files.dicom_dataset(samples, 12, **luts)
    radiograph, notices, _ = decode_with_notices(files.dicom_bytes(dataset))
    assert np.abs(radiograph - apply_voi_lut(samples, dataset) / 257).max() <= 0.51
    assert notices == ()
    modality = Sequence([lut_item(4095 - np.arange(4096), 0)])
    dataset = files.dicom_dataset(samples, 12, ModalityLUTSequence=modality, WindowCenter=2048, WindowWidth=4096)
    expected = apply_modality_lut(samples, dataset) * (255 / 4095)
    assert np.abs(decode_radiograph(files.dicom_bytes(dataset)) - expected).max() <= 0.51


def test_I29_voi_lut_with_a_wrong_depth_or_a_negative_start():
    samples = twin(12)
    lying = {"VOILUTSequence": Sequence([lut_item(np.arange(4096), 0, bits=16)])}  # 12-bit entries said to be 16
    assert np.abs(decode_radiograph(files.dicom(samples, 12, **lying)) - to_8_bits(samples, 12)).max() <= 0.51
    shifted = {"VOILUTSequence": Sequence([lut_item(np.arange(4096), -2048, bits=12, signed=True)])}
    data = files.dicom(samples.astype(int) - 2048, 12, signed=True, **shifted)
    assert np.abs(decode_radiograph(data) - to_8_bits(samples, 12)).max() <= 0.51


BAD_WINDOWS = [("abc", "100"), ("100", "abc"), ("2000", "0"), ("2000", "-5"), ("nan", "100"), ("inf", "100")]


@pytest.mark.parametrize(("centre", "width"), [*BAD_WINDOWS, ("1e300", "100"), ("-9000", "10"), ("2000", "")])
def test_I29_bad_windows_are_ignored_with_a_notice(centre, width, capfd):
    samples = twin(12)
    data = with_text(files.dicom(samples, 12, WindowCenter="88888888", WindowWidth="99999999"), centre, width)
    radiograph, notices, _ = decode_with_notices(data)
    np.testing.assert_array_equal(radiograph, decode_radiograph(files.dicom(samples, 12)))
    assert notices == (BAD_WINDOW,)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("slope", "intercept"), [("abc", "0"), ("0", "0"), ("1", "nan"), ("1e200", "0")])
def test_I29_bad_rescale_is_ignored_with_a_notice(slope, intercept):
    data = with_text(files.dicom(PICTURE, RescaleSlope="88888888", RescaleIntercept="99999999"), slope, intercept)
    radiograph, notices, _ = decode_with_notices(data)
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert notices == (BAD_RESCALE,)


def with_text(data: bytes, first: str, second: str) -> bytes:
    """Write any text over the two placeholders of 8 characters, past pydicom's checks."""
    return data.replace(b"88888888", first.ljust(8).encode()).replace(b"99999999", second.ljust(8).encode())


def test_I29_bad_luts_are_ignored_with_a_notice():
    short = lut_item(np.arange(100), 0)
    short.LUTData = bytes(20)
    for keyword, item in (("VOILUTSequence", short), ("VOILUTSequence", Dataset()), ("ModalityLUTSequence", short)):
        radiograph, notices, _ = decode_with_notices(files.dicom(PICTURE, **{keyword: Sequence([item])}))
        np.testing.assert_array_equal(radiograph, PICTURE)
        assert notices == (BAD_LUT,)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(photometric):
    samples = twin(12)
    padded = np.pad(samples, 16, constant_values=9999)
    kind = {"PhotometricInterpretation": photometric}
    dataset = files.dicom_dataset(padded, 14, **kind)
    dataset.add_new(0x00280120, "US", 9999)
    radiograph = decode_radiograph(files.dicom_bytes(dataset))
    np.testing.assert_array_equal(radiograph[16:-16, 16:-16], decode_radiograph(files.dicom(samples, 14, **kind)))
    assert radiograph[:16].max() == 0


def test_I36_unused_bits_hold_an_overlay_or_are_an_error():
    samples = twin(12) | np.uint16(0x4000)
    dataset = files.dicom_dataset(samples, 16, WindowCenter=2048, WindowWidth=4096)
    dataset.BitsStored, dataset.HighBit = 12, 11
    assert error_code(files.dicom_bytes(dataset)) == "dicom_header"
    dataset.add_new(0x60000102, "US", 14)
    assert np.abs(decode_radiograph(files.dicom_bytes(dataset)) - to_8_bits(twin(12), 12)).max() <= 0.51


def test_I36_high_bit_above_bits_stored_is_shifted():
    dataset = files.dicom_dataset(twin(12) << 4, 16, WindowCenter=2048, WindowWidth=4096)
    dataset.BitsStored = 12
    assert np.abs(decode_radiograph(files.dicom_bytes(dataset)) - to_8_bits(twin(12), 12)).max() <= 0.51


def test_I23_blank_dicoms_are_refused():
    for bits, samples in ((8, np.full((96, 80), 9)), (12, np.full((96, 80), 900)), (16, 900 + twin(3))):
        assert error_code(files.dicom(samples, bits)) == "blank"


# --- compressed pixels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [files.RLE, files.JPEG_LS, files.JPEG_2000])
def test_I30_lossless_compression_changes_nothing(bits, syntax):
    samples = twin(bits)
    np.testing.assert_array_equal(
        decode_radiograph(files.dicom_compressed(samples, bits, syntax)), decode_radiograph(files.dicom(samples, bits))
    )


@needs_libjpeg
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_I30_jpeg_lossless_equals_the_native_picture(bits):
    samples = twin(bits)
    data = files.dicom_encapsulated(files.jpeg_lossless(samples, bits), samples, bits, files.JPEG_LOSSLESS)
    np.testing.assert_array_equal(decode_radiograph(data), decode_radiograph(files.dicom(samples, bits)))


def test_I30_jpeg_baseline_equals_the_jpeg_file():
    frame = files.pillow_bytes(PICTURE, quality=80)
    radiograph = decode_radiograph(files.dicom_encapsulated(frame, PICTURE, 8, files.JPEG_BASELINE))
    np.testing.assert_array_equal(radiograph, np.asarray(Image.open(BytesIO(frame))))


def test_I30_a_missing_plugin_is_named_by_its_compression(monkeypatch):
    class Without:
        available_plugins = ()

    monkeypatch.setattr(dicom_pixels, "get_decoder", lambda syntax: Without)
    for syntax, name in ((files.JPEG_LOSSLESS, "JPEG lossless"), (files.JPEG_2000, "JPEG 2000"), (files.RLE, "RLE")):
        data = files.dicom_encapsulated(b"\xff\xd8", PICTURE, 8, syntax)
        with pytest.raises(ImageError, match=f"compressed with {name}, which is not supported") as caught:
            decode_radiograph(data)
        assert (caught.value.code, caught.value.status) == ("dicom_compression", 415)


def test_I30_codestreams_that_contradict_the_header_are_refused():
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


def test_I30_an_rle_bomb_is_not_expanded():
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


# --- what is refused -------------------------------------------------------------------------------------------------

UNSUPPORTED = {
    "deflated": "1.2.840.10008.1.2.1.99",
    "JPIP deflated": "1.2.840.10008.1.2.4.95",
    "big endian": "1.2.840.10008.1.2.2",
    "MPEG-4": "1.2.840.10008.1.2.4.102",
    "private": "1.2.3.4.5",
    "missing": None,
}


@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_I31_unsupported_encodings_are_refused_after_group_2(kind):
    assert error_code(files.dicom_start(UNSUPPORTED[kind]) + b"never read") == "dicom_compression"


def test_I31_a_deflate_bomb_costs_no_memory():
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    tracemalloc.start()
    try:
        assert error_code(files.dicom_start("1.2.840.10008.1.2.1.99") + bomb) == "dicom_compression"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


REFUSED_TAGS = [
    ({"NumberOfFrames": 2}, "several_pictures"),
    ({"NumberOfFrames": 100_000}, "several_pictures"),
    ({"NumberOfFrames": 0}, "several_pictures"),
    ({"PixelData": None}, "dicom_no_picture"),
    ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "dicom_colour"),
    ({"PhotometricInterpretation": "PALETTE COLOR"}, "dicom_colour"),
    ({"PhotometricInterpretation": "YBR_FULL_422"}, "dicom_colour"),
    ({"PhotometricInterpretation": None}, "dicom_colour"),
    ({"Rows": None}, "dicom_header"),
    ({"Rows": [96, 96]}, "dicom_header"),
    ({"BitsStored": 9}, "dicom_header"),
    ({"BitsStored": 0}, "dicom_header"),
    ({"BitsStored": None}, "dicom_header"),
    ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "dicom_header"),
    ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "dicom_header"),
    ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "dicom_header"),
    ({"HighBit": 3}, "dicom_header"),
    ({"HighBit": 12}, "dicom_header"),
    ({"PixelRepresentation": 7}, "dicom_header"),
    ({"BitsAllocated": 16}, "damaged"),
    ({"Rows": 97}, "damaged"),
    ({"Rows": 200, "Columns": 200}, "damaged"),
    ({"Rows": 65_535, "Columns": 65_535}, "too_large"),
    ({"Rows": 0}, "too_small"),
    ({"Rows": 63}, "too_small"),
    ({"Rows": 64, "Columns": 300}, "aspect"),
]


@pytest.mark.parametrize(("tags", "code"), REFUSED_TAGS)
def test_I32_I33_I34_I36_headers_are_refused_before_decoding(tags, code):
    tracemalloc.start()
    try:
        assert error_code(files.dicom(PICTURE, **tags)) == code
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


def test_I33_float_pixels_reports_and_directories_are_refused():
    dataset = files.dicom_dataset(PICTURE, PixelData=None)
    dataset.FloatPixelData = PICTURE.astype(np.float32).tobytes()
    assert error_code(files.dicom_bytes(dataset)) == "dicom_no_picture"
    meta = files.element((2, 2), b"UI", b"1.2.840.10008.1.3.10") + files.element(
        (2, 0x10), b"UI", b"1.2.840.10008.1.2.1\0"
    )
    assert error_code(bytes(128) + b"DICM" + meta) == "dicom_directory"


def test_I37_cut_dicom_is_never_half_a_picture():
    after = {"DataSetTrailingPadding": bytes(600)}
    native = files.dicom(PICTURE, **after)
    jpeg = files.dicom_encapsulated(files.pillow_bytes(PICTURE), PICTURE, 8, files.JPEG_BASELINE, **after)
    others = [files.dicom_compressed(PICTURE, 8, s, **after) for s in (files.RLE, files.JPEG_LS, files.JPEG_2000)]
    for data in (native, jpeg, *others):
        whole = decode_radiograph(data)
        offsets = np.random.default_rng(37).integers(0, len(data), 200)
        decoded = [assert_whole_or_refused(data[:offset], whole) for offset in offsets]
        assert not all(decoded)
        assert not assert_whole_or_refused(data[: len(data) // 2], whole)


def nested_sequences(depth: int) -> bytes:
    opening = files.element((8, 0x1140), b"SQ", b"", 0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return files.dicom_start() + opening * depth


HOSTILE = {
    "magic only": bytes(128) + b"DICM",
    "400 nested sequences": nested_sequences(400),
    "100,000 nested sequences": nested_sequences(100_000),
    "huge length": files.dicom_start() + files.element((8, 0x60), b"UT", b"DX", 0xFFFFFFF0),
    "undefined length": files.dicom_start() + files.element((0x7FE0, 0x10), b"OB", b"DX", 0xFFFFFFFF),
    "180,000 tiny elements": files.dicom_start() + b"".join(
        files.element((9, number % 65536), b"LO", b"") for number in range(180_000)
    ),
    "garbage after the meta group": files.dicom_start() + bytes(range(256)) * 9,
    "pixels of an unknown type": files.dicom_encapsulated(
        files.pillow_bytes(PICTURE), PICTURE, 8, files.JPEG_BASELINE
    ).replace(b"\xe0\x7f\x10\x00OB", b"\xe0\x7f\x10\x00MB"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_I37_hostile_structures_are_contained(kind):
    assert error_code(HOSTILE[kind]) in ("damaged", "dicom_no_picture", "dicom_compression")


def item(value: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


OPEN_SEQUENCE = files.element((8, 0x1140), b"SQ", b"", 0xFFFFFFFF)
OPEN_UNKNOWN = files.element((8, 0x1140), b"UN", b"", 0xFFFFFFFF)
OPEN_PIXELS = files.element((0x7FE0, 0x10), b"OB", b"", 0xFFFFFFFF)
LOOKUP_TABLE = files.element((0x28, 0x3010), b"SQ", item() * 40_000)
MANY_PARTS = {
    "items": OPEN_SEQUENCE + item() * 11_000,
    "items of items": OPEN_SEQUENCE + item(b"", 0xFFFFFFFF) * 11_000,
    "items in an unknown type": OPEN_UNKNOWN + item() * 11_000,
    "elements in an item": OPEN_SEQUENCE + item(b"", 0xFFFFFFFF) + files.element((8, 0x1150), b"LO", b"") * 11_000,
    "elements": files.element((9, 1), b"LO", b"") * 11_000,
    "fragments": OPEN_PIXELS + item() * 11_000,
}


@pytest.mark.parametrize("kind", [*MANY_PARTS, "lookup table"])
def test_I37_a_file_of_tiny_parts_never_reaches_the_reader(kind, monkeypatch):
    """pydicom takes 53 s and 2 GB for 30 MB of empty items."""
    monkeypatch.setattr("cxr.imaging.dicom.pydicom.dcmread", lambda *_, **__: pytest.fail("was read"))
    parts = MANY_PARTS.get(kind, LOOKUP_TABLE)
    with pytest.raises(ImageError, match="too long" if kind == "lookup table" else "more than 10000 parts") as caught:
        decode_radiograph(files.dicom_start() + parts)
    assert caught.value.code == "damaged"


@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.IMPLICIT])
@pytest.mark.parametrize("undefined", [False, True])
def test_I37_sequences_around_the_needed_elements_are_stepped_over(syntax, undefined):
    inner = files.dicom_dataset(PICTURE, Rows=7, PixelData=None)  # an icon's Rows must not be taken for the picture's
    deeper = files.dicom_dataset(PICTURE, Columns=9, PixelData=None)
    inner.IconImageSequence = [deeper]
    dataset = files.dicom_dataset(PICTURE, syntax=syntax)
    dataset.IconImageSequence, dataset.ReferencedImageSequence = [inner, deeper], [inner]
    dataset.add_new((0x0009, 0x1001), "UN", b"private")
    if undefined:
        for one in (dataset, inner):
            for element in one:
                if element.VR == "SQ":
                    element.is_undefined_length = True
                    for part in element.value:
                        part.is_undefined_length_sequence_item = True
    np.testing.assert_array_equal(decode_radiograph(files.dicom_bytes(dataset)), PICTURE)


def test_I37_an_unknown_sequence_of_undefined_length_is_implicit_inside():
    """PS3.5, 6.2.2, note 4: Rows inside looks like an element of another length where it is read as explicit."""
    inside = item(struct.pack("<HHI", 0x28, 0x10, 2) + b"\x07\x00", 0xFFFFFFFF)
    inside += struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    data = files.dicom(PICTURE)
    place = data.index(struct.pack("<HH2s", 8, 0x60, b"CS"))
    data = data[:place] + files.element((8, 0x59), b"UN", b"", 0xFFFFFFFF) + inside + data[place:]
    np.testing.assert_array_equal(decode_radiograph(data), PICTURE)


@pytest.mark.parametrize("preamble", [b"MZ", b"\x7fELF", b"II*\x00"])
def test_I37_the_preamble_is_not_looked_at(preamble):
    data = files.dicom(PICTURE)
    np.testing.assert_array_equal(decode_radiograph(preamble.ljust(128, b"\x00") + data[128:]), PICTURE)


def test_I37_files_that_lost_their_start_are_read():
    """Rule: group 2 with a standard transfer syntax, or group 8 in order up to the SOP class of a storage object."""
    explicit, implicit = files.dicom(PICTURE), files.dicom(PICTURE, syntax=files.IMPLICIT)
    cases = [explicit[132:]]
    for data in (explicit, implicit):
        length = struct.unpack_from("<I", data, 140)[0]
        cases.append(data[144 + length :])
        assert cases[-1][:2] == b"\x08\x00"
    for data in cases:
        np.testing.assert_array_equal(decode_radiograph(data), PICTURE)
    for start in (
        b"\x08\x00\x16\x00",
        b"\x08\x00" * 300,
        cases[1][:20],
        cases[1].replace(b"1.2.840.10008.5", b"1.2.840.10008.9"),
    ):
        assert error_code(start) == "type"


# --- notices and privacy ---------------------------------------------------------------------------------------------

NOTICES = [
    ({"Modality": "CT"}, "The file is not marked as a radiograph (CR, DX, DR or RG)."),
    ({"Modality": None}, "The file is not marked as a radiograph (CR, DX, DR or RG)."),
    ({"BodyPartExamined": "HAND"}, "The file is marked as another part of the body than the chest."),
    ({"ViewPosition": "LL"}, "The file is marked as a lateral view; frontal views (PA or AP) are expected."),
    ({"ViewPosition": "LATERAL"}, "The file is marked as a lateral view; frontal views (PA or AP) are expected."),
    (
        {"PatientOrientation": ["A", "F"]},
        "The file is marked as a lateral view; frontal views (PA or AP) are expected.",
    ),
    (
        {"BurnedInAnnotation": "YES"},
        "The file is marked as having text in the picture, which may name the patient.",
    ),
    (
        {"PresentationIntentType": "FOR PROCESSING"},
        "The file is marked as raw detector data, which looks different from a picture for reading.",
    ),
    ({"Modality": "CR"}, None),
    ({"Modality": "DR"}, None),
    ({"Modality": "RG"}, None),
    ({"BodyPartExamined": None}, None),
    ({"BodyPartExamined": "Chest "}, None),
    ({"ViewPosition": "AP", "PatientOrientation": ["L", "F"], "BurnedInAnnotation": "NO"}, None),
]


@pytest.mark.parametrize(("tags", "notice"), NOTICES)
def test_I35_I39_unusual_headers_give_a_notice(tags, notice):
    radiograph, notices, _ = decode_with_notices(files.dicom(PICTURE, **tags))
    assert notices == (() if notice is None else (notice,))
    np.testing.assert_array_equal(radiograph, PICTURE)


def test_I03_few_bits_give_a_notice():
    samples = PICTURE >> 4
    radiograph, notices, _ = decode_with_notices(files.dicom(samples, 4))
    np.testing.assert_array_equal(radiograph, samples * 17)
    assert notices == ("This picture has only 16 grey levels; a radiograph has 256 or more, and detail is lost.",)


TEXT_TAGS = """PatientName PatientID PatientBirthDate PatientAge StudyDate StudyTime StudyDescription StudyInstanceUID
    InstitutionName AccessionNumber SeriesDescription ReferringPhysicianName OperatorsName StationName Modality
    BodyPartExamined ViewPosition BurnedInAnnotation WindowCenter WindowWidth RescaleSlope SpecificCharacterSet"""


def dicom_full_of_markers() -> bytes:
    """Plant a marker, invalid for its type, in every text element; written by hand, as pydicom would refuse to."""
    elements = {}
    for element in files.dicom_dataset(PICTURE):
        value = element.value if isinstance(element.value, bytes) else str(element.value).encode()
        elements[element.tag] = (element.VR, struct.pack("<H", element.value) if element.VR == "US" else value)
    for place, keyword in enumerate(TEXT_TAGS.split()):
        tag = pydicom.datadict.tag_for_keyword(keyword)
        elements[tag] = (pydicom.datadict.dictionary_VR(tag), b"DOE^JANE 1950-13-99 \xe9 %02d " % place)
    elements[0x00091001] = ("UN", b"DOE^JANE private!!")
    ordered = sorted(elements.items())
    coded = [files.element((tag >> 16, tag & 0xFFFF), vr.encode(), value) for tag, (vr, value) in ordered]
    return files.dicom_start() + b"".join(coded)


def test_I38_no_value_of_the_header_leaves(caplog, capfd):
    """Look for the markers wherever text can come out, for the whole file, cut ones and one that lies."""
    whole = dicom_full_of_markers()
    assert whole.count(b"DOE^JANE") == 23
    cuts = [whole[:end] for end in range(200, len(whole), 97)]
    frames = whole.replace(
        files.element((0x28, 0x10), b"US", b"\x60\x00"), files.element((0x28, 0x10), b"US", b"\xff\x00")
    )
    said = []
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        for data in (whole, frames, *cuts):
            try:
                said += decode_with_notices(data)[1]
            except ImageError as error:
                assert error.__cause__ is None
                assert error.__context__ is None
                said.append(str(error))
        said += [str(warning.message) for warning in caught]
    assert len(said) > 50
    out = "\n".join([*said, caplog.text, *capfd.readouterr()])
    assert "DOE" not in out
    assert "1950" not in out


# --- real files ------------------------------------------------------------------------------------------------------

needs_real_data = pytest.mark.skipif("CXR_REAL_DATA" not in os.environ, reason="CXR_REAL_DATA names no folder")
REAL_NOTICES = {
    "udacity_test4.dcm": ("The file is marked as another part of the body than the chest.",),
    "udacity_test5.dcm": ("The file is not marked as a radiograph (CR, DX, DR or RG).",),
}


def real_folder() -> Path:
    return Path(os.environ["CXR_REAL_DATA"])


@needs_real_data
def test_real_dicoms_decode_with_their_notices():
    paths = sorted((real_folder() / "dicom").glob("*.dcm"))
    assert paths
    for path in paths:
        radiograph, notices, _ = decode_with_notices(path.read_bytes())
        assert notices == REAL_NOTICES.get(path.name, ()), path.name
        assert radiograph.std() > 20, path.name


@needs_real_data
@pytest.mark.parametrize(
    ("name", "png"), [("test1", "00000002_000"), ("test2", "00000001_000"), ("test3", "00000061_002")]
)
def test_real_dicoms_equal_their_pngs(name, png):
    radiograph = decode_radiograph((real_folder() / "dicom" / f"udacity_{name}.dcm").read_bytes())
    found = [path for size in ("images-1024", "images-256") if (path := real_folder() / size / f"{png}.png").exists()]
    if not found:
        pytest.skip("the PNG of this DICOM is not there")
    for path in found:
        twin_picture = decode_radiograph(path.read_bytes())
        resized = cv2.resize(radiograph, twin_picture.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(resized - twin_picture.astype(int)).max() <= 1, path.name


@needs_real_data
def test_I28_real_monochrome1_is_the_inverse_of_its_twin():
    folder = real_folder() / "dicom"
    upright = decode_radiograph((folder / "txrv_rsna_jpegbaseline.dcm").read_bytes())
    inverted = decode_radiograph((folder / "txrv_fake_mono1.dcm").read_bytes())
    np.testing.assert_array_equal(inverted, 255 - upright)
