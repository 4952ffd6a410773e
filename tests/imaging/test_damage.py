"""Damage that decoders pass over: cut, rotten and contradictory pixel data is refused, whole data never."""

import os
import struct
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
import radiographs as files
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from cxr.imaging import dicom_pixels
from cxr.imaging.radiograph import ImageError, decode_radiograph
from cxr.system.openjpeg import library

END = b"\xff\xd9"
NUM_ROTS = 40
PICTURE = files.radiograph(300, 280, 3)
FINE = (PICTURE.astype(np.uint16) << 4) + np.random.default_rng(7).integers(0, 16, PICTURE.shape, dtype=np.uint16)
COLOURED = np.dstack([PICTURE] * 3)

needs_libjpeg = pytest.mark.skipif(
    "pylibjpeg" not in get_decoder(files.JPEG_LOSSLESS).available_plugins, reason="pylibjpeg-libjpeg is optional"
)


def noisy(samples: np.ndarray) -> np.ndarray:
    """Add a detector's noise, so that a codec has something to write in every block."""
    noise = np.random.default_rng(5).normal(0, 4, samples.shape)
    return np.clip(samples + noise, 0, 255).astype(np.uint8)


WHOLE_JPEGS = {
    "baseline": files.pillow_bytes(noisy(PICTURE)),
    "best quality": files.pillow_bytes(noisy(PICTURE), quality=100),
    "worst quality": files.pillow_bytes(noisy(PICTURE), quality=5),
    "optimised": files.pillow_bytes(noisy(PICTURE), optimize=True),
    "progressive": files.pillow_bytes(noisy(PICTURE), progressive=True),
    "restart per rows": files.pillow_bytes(noisy(PICTURE), restart_marker_rows=1),
    "restart per blocks": files.pillow_bytes(noisy(PICTURE), restart_marker_blocks=7),
    "colours 4:2:0": files.pillow_bytes(noisy(COLOURED), subsampling=2),
    "colours 4:4:4, progressive": files.pillow_bytes(noisy(COLOURED), subsampling=0, progressive=True),
    "OpenCV": cv2.imencode(".jpg", noisy(PICTURE))[1].tobytes(),
    "OpenCV, restarts": cv2.imencode(".jpg", noisy(PICTURE), [cv2.IMWRITE_JPEG_RST_INTERVAL, 5])[1].tobytes(),
    "OpenCV, progressive": cv2.imencode(".jpg", noisy(PICTURE), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes(),
    "odd sides": files.pillow_bytes(noisy(PICTURE[:293, :271])),
    "profile and comment": files.pillow_bytes(noisy(PICTURE), comment=b"x" * 99, icc_profile=b"y" * 999),
}


def code_of(data: bytes) -> str:
    """Return the code with which a file is refused, "" where it is read."""
    try:
        decode_radiograph(data)
    except ImageError as error:
        return error.code
    return ""


def cut_and_closed(stream: bytes, start: int) -> list[bytes]:
    """Cut a stream at 99 positions behind `start` and close each piece with an end marker, to an even length."""
    cuts = [stream[: start + (len(stream) - start) * percent // 100] + END for percent in range(1, 100)]
    return [cut + b"\x00" * (len(cut) % 2) for cut in cuts]


def rotten(stream: bytes, start: int, length: int) -> list[bytes]:
    """Write random bytes over stretches of a stream behind `start`."""
    rng = np.random.default_rng(length)
    found = []
    for at in rng.integers(start, len(stream) - length - 2, NUM_ROTS):
        rot = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        found.append(stream[:at] + rot + stream[at + length :])
    return found


@pytest.mark.fault("I60")
@pytest.mark.parametrize("kind", WHOLE_JPEGS)
def test_whole_jpegs_are_read_to_the_pixels_that_pillow_reads(kind):
    expected = np.asarray(Image.open(BytesIO(WHOLE_JPEGS[kind])).convert("L")).astype(int)
    assert np.abs(decode_radiograph(WHOLE_JPEGS[kind]) - expected).max() <= 1  # 1: rounding of colours to grey


@pytest.mark.fault("I60")
@pytest.mark.parametrize("kind", WHOLE_JPEGS)
def test_a_cut_jpeg_that_was_closed_again_is_refused(kind):
    data = WHOLE_JPEGS[kind]
    assert {code_of(cut) for cut in cut_and_closed(data, data.index(b"\xff\xda") + 10)} == {"damaged"}


@pytest.mark.fault("I60")
@pytest.mark.parametrize("kind", ["baseline", "best quality", "progressive", "restart per rows", "colours 4:2:0"])
def test_a_jpeg_with_3_kb_of_rot_is_refused(kind):
    data = WHOLE_JPEGS[kind]
    codes = {code_of(rot) for rot in rotten(data, data.index(b"\xff\xda") + 10, 3000)}
    assert codes <= {"damaged", "several_pictures", "too_many_scans"}


@pytest.mark.fault("I60")
@pytest.mark.parametrize("kind", ["baseline", "progressive", "restart per blocks", "colours 4:2:0", "OpenCV"])
@pytest.mark.parametrize("height", [128, 270, 330, 560])
def test_a_jpeg_that_lies_about_its_height_is_refused(kind, height):
    data = bytearray(WHOLE_JPEGS[kind])
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    data[frame + 5 : frame + 7] = struct.pack(">H", height)
    assert code_of(bytes(data)) == "damaged"


def codestream(samples: np.ndarray, bits: int, syntax: str) -> bytes:
    """Compress with pydicom's encoder and return the bare codestream."""
    dataset = pydicom.dcmread(BytesIO(files.dicom_compressed(samples, bits, syntax)))
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


CODESTREAMS = {
    "JPEG": (files.pillow_bytes(noisy(PICTURE)), PICTURE, 8, files.JPEG_BASELINE),
    "JPEG-LS": (codestream(noisy(PICTURE), 8, files.JPEG_LS), PICTURE, 8, files.JPEG_LS),
    "JPEG-LS 12": (codestream(FINE, 12, files.JPEG_LS), FINE, 12, files.JPEG_LS),
    "JPEG 2000": (codestream(noisy(PICTURE), 8, files.JPEG_2000), PICTURE, 8, files.JPEG_2000),
    "JPEG 2000 12": (codestream(FINE, 12, files.JPEG_2000), FINE, 12, files.JPEG_2000),
    "RLE": (codestream(noisy(PICTURE), 8, files.RLE), PICTURE, 8, files.RLE),
    "RLE 12": (codestream(FINE, 12, files.RLE), FINE, 12, files.RLE),
}
LOSSLESS = {
    "JPEG lossless": (files.jpeg_lossless(noisy(PICTURE), 8), PICTURE, 8, files.JPEG_LOSSLESS),
    "JPEG lossless 12": (files.jpeg_lossless(FINE, 12), FINE, 12, files.JPEG_LOSSLESS),
}
STREAMS = [*CODESTREAMS, *(pytest.param(kind, marks=needs_libjpeg) for kind in LOSSLESS)]


@pytest.mark.fault("I61")
@pytest.mark.parametrize("kind", STREAMS)
def test_compressed_pixels_of_a_dicom_are_whole_or_refused(kind):
    stream, *rest = (CODESTREAMS | LOSSLESS)[kind]
    assert code_of(files.dicom_encapsulated(stream, *rest)) == ""
    start = 66 if "RLE" in kind else 200
    cuts = cut_and_closed(stream, start)
    assert {code_of(files.dicom_encapsulated(cut, *rest)) for cut in cuts} == {"damaged"}
    codes = [code_of(files.dicom_encapsulated(rot, *rest)) for rot in rotten(stream, start, 3000)]
    # The arithmetic code of JPEG 2000 decodes anything; what gives rot away there is bytes that no encoder writes.
    assert codes.count("") <= (NUM_ROTS // 20 if "2000" in kind else 0)
    assert set(codes) <= {"", "damaged", "dicom_header", "several_pictures", "too_many_scans"}


def lossy_j2k(samples: np.ndarray, bits: int, ratios: list[int]) -> bytes:
    """Compress with quality layers, whose code-blocks the encoder cuts where it likes."""
    dataset = files.dicom_dataset(samples, bits)
    dataset.compress(files.JPEG_2000_LOSSY, j2k_cr=ratios, generate_instance_uid=False)
    return get_frame(dataset.PixelData, 0, number_of_frames=1)


LOSSY_J2K = {
    "10": (lossy_j2k(noisy(PICTURE), 8, [10]), PICTURE, 8, files.JPEG_2000_LOSSY),
    "20, 5": (lossy_j2k(FINE, 12, [20, 5]), FINE, 12, files.JPEG_2000_LOSSY),
}


@pytest.mark.fault("I92")
@pytest.mark.skipif(library() is None, reason="OpenJPEG's own functions cannot be called here")
@pytest.mark.parametrize(("length", "share"), [(1, 0.75), (16, 0.8), (300, 0.95)])
@pytest.mark.parametrize("kind", ["JPEG-LS", "JPEG-LS 12", "JPEG 2000", "JPEG 2000 12", "10", "20, 5"])
def test_a_few_bytes_of_rot_are_noticed_where_codes_then_miss_the_end(kind, length, share):
    stream, *rest = (CODESTREAMS | LOSSY_J2K)[kind]
    assert code_of(files.dicom_encapsulated(stream, *rest)) == ""
    start = stream.index(b"\xff\x93") + 2 if b"\xff\x93" in stream else stream.index(b"\xff\xda") + 10
    codes = [code_of(files.dicom_encapsulated(rot, *rest)) for rot in rotten(stream, start, length)]
    assert sum(code != "" for code in codes) >= share * NUM_ROTS


@pytest.mark.fault("I92")
def test_mutation_without_the_look_at_the_ends_rot_passes(monkeypatch):
    monkeypatch.setattr(dicom_pixels, "largest_misfit", lambda _: 0)
    stream, *rest = CODESTREAMS["JPEG 2000"]
    codes = [code_of(files.dicom_encapsulated(rot, *rest)) for rot in rotten(stream, 200, 16)]
    assert codes.count("") > 0.8 * NUM_ROTS


def of_odd_length(stream: bytes) -> bytes:
    """Cut a codestream behind its end marker, and put a comment into it where its length is even."""
    stream = stream[: stream.rindex(END) + 2]
    if len(stream) % 2:
        return stream
    if stream.startswith(b"\xff\x4f"):  # JPEG 2000: behind the SIZ marker
        place, comment = 4 + struct.unpack_from(">H", stream, 4)[0], b"\xff\x64\x00\x05\x00\x01x"
    else:
        place, comment = 2, b"\xff\xfe\x00\x03x"
    return stream[:place] + comment + stream[place:]


@pytest.mark.fault("I93")
@pytest.mark.parametrize("kind", ["JPEG", "JPEG-LS", "JPEG 2000"])
@pytest.mark.parametrize("padding", [b"\x00", b"\xff", b"\x20"])
def test_a_byte_that_makes_a_stream_even_is_no_damage(kind, padding):
    stream, *rest = CODESTREAMS[kind]
    expected = decode_radiograph(files.dicom_encapsulated(stream, *rest))
    padded = of_odd_length(stream) + padding
    np.testing.assert_array_equal(decode_radiograph(files.dicom_encapsulated(padded, *rest)), expected)


@pytest.mark.fault("I61")
def test_jpeg_2000_tile_parts_must_fill_the_stream():
    stream, *rest = CODESTREAMS["JPEG 2000"]
    at = stream.index(b"\xff\x90\x00\x0a")
    length = struct.unpack_from(">I", stream, at + 6)[0]

    def with_length(value: int) -> str:
        changed = stream[: at + 6] + struct.pack(">I", value) + stream[at + 10 :]
        return code_of(files.dicom_encapsulated(changed, *rest))

    assert with_length(length) == with_length(0) == ""  # 0: up to the end marker
    for value in (1, 12, length - 2, length - 1, length + 1, length + 2, 2**32 - 1):
        assert with_length(value) == "damaged"
    for changed in (stream[:-2], stream + stream, stream[:at] + END, stream[: at + 12] + END):
        changed += b"\x00" * (len(changed) % 2)
        assert code_of(files.dicom_encapsulated(changed, *rest)) == "damaged"


@pytest.mark.parametrize("marker", [b"\xff\x52", b"\xff\x53"], ids=["COD", "COC"])
@pytest.mark.parametrize("length", range(6))
def test_a_jpeg_2000_whose_second_coding_segment_is_too_short_is_refused(marker, length):
    stream, *rest = CODESTREAMS["JPEG 2000"]
    at = stream.index(b"\xff\x90\x00\x0a")
    changed = stream[:at] + marker + struct.pack(">H", 2 + length) + bytes(length) + stream[at:]
    changed += b"\x00" * (len(changed) % 2)
    assert code_of(files.dicom_encapsulated(changed, *rest)) == "damaged"


@pytest.mark.fault("I62")
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (280, 280), (300, 279), (299, 280), (150, 280), (140, 300)])
@pytest.mark.parametrize("bits", [8, 12])
def test_pixels_that_the_header_does_not_account_for_are_refused(rows, columns, bits):
    samples = PICTURE if bits == 8 else FINE
    assert code_of(files.dicom(samples, bits, Rows=rows, Columns=columns)) == "dicom_header"


@pytest.mark.fault("I62")
@pytest.mark.parametrize("num_bytes", [1, 2, 128, 278])
def test_a_little_padding_behind_the_pixels_is_none_of_them(num_bytes):
    padded = files.dicom_dataset(PICTURE)
    padded.PixelData += bytes(num_bytes + num_bytes % 2)
    np.testing.assert_array_equal(decode_radiograph(files.dicom_bytes(padded)), PICTURE)


def j2k_with(stream: bytes, depth: int | None = None, step: int = 1) -> bytes:
    """Change what the SIZ marker declares of the only component."""
    stream = bytearray(stream)
    stream[42] = stream[42] if depth is None else depth
    stream[43] = step
    return bytes(stream)


@pytest.mark.fault("I63")
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", [files.JPEG_2000, files.JPEG_2000_LOSSY])
def test_a_stream_signed_otherwise_than_its_header_is_refused(bits, syntax):
    samples = noisy(PICTURE) if bits == 8 else FINE << (bits - 12)
    stream = codestream(samples, bits, files.JPEG_2000)
    assert code_of(files.dicom_encapsulated(stream, samples, bits, syntax)) == ""
    signed = j2k_with(stream, 0x80 | bits - 1)
    assert code_of(files.dicom_encapsulated(signed, samples, bits, syntax)) == "dicom_header"
    assert code_of(files.dicom_encapsulated(stream, samples, bits, syntax, PixelRepresentation=1)) == "dicom_header"
    assert code_of(files.dicom_encapsulated(j2k_with(stream, step=2), samples, bits, syntax)) == "damaged"


@pytest.mark.fault("I63")
@pytest.mark.parametrize("syntax", [files.JPEG_2000, files.JPEG_LS])
def test_a_stream_of_fewer_bits_than_its_header_is_refused_and_of_more_is_looked_at(syntax):
    narrow, wide = codestream(FINE >> 2, 10, syntax), codestream(FINE, 16, syntax)
    assert code_of(files.dicom_encapsulated(narrow, FINE, 12, syntax)) == "dicom_header"
    expected = decode_radiograph(files.dicom(FINE, 12))
    np.testing.assert_array_equal(decode_radiograph(files.dicom_encapsulated(wide, FINE, 12, syntax)), expected)
    beyond = codestream(FINE << 3, 16, syntax)
    assert code_of(files.dicom_encapsulated(beyond, FINE, 12, syntax)) == "dicom_header"


@pytest.mark.fault("I63")
def test_a_lossy_stream_may_overshoot_a_little():
    samples = np.where(np.random.default_rng(1).random(PICTURE.shape) < 0.5, 0, FINE)
    samples[:3] = 4095
    dataset = files.dicom_dataset(samples, 16)  # 16 bits in the stream, 12 in the header
    dataset.compress(files.JPEG_2000_LOSSY, j2k_cr=[8], generate_instance_uid=False)
    stream = get_frame(dataset.PixelData, 0, number_of_frames=1)
    lossy = decode_radiograph(files.dicom_encapsulated(stream, samples, 12, files.JPEG_2000_LOSSY))
    whole = decode_radiograph(files.dicom(samples, 12))
    assert np.corrcoef(lossy.ravel(), whole.ravel())[0, 1] > 0.9


@pytest.mark.skipif("CXR_REAL_DATA" not in os.environ, reason="CXR_REAL_DATA names no folder")
def test_real_radiographs_are_read_as_every_kind_of_jpeg():
    paths = sorted(Path(os.environ["CXR_REAL_DATA"]).glob("images-1024/*.png"))[:20]
    for path in paths:
        samples = decode_radiograph(path.read_bytes())
        for options in ({}, {"quality": 95}, {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 2}):
            data = files.pillow_bytes(samples, **options)
            np.testing.assert_array_equal(decode_radiograph(data), np.asarray(Image.open(BytesIO(data))))
