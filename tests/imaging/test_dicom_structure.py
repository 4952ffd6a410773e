"""DICOM files whose structure is cut, contradictory, unsupported or hostile."""

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import radiographs as files
from broken_pictures import assert_whole_or_refused, error_code
from dicom_parts import LOOKUP_TABLE, MANY_PARTS, item

from cxr.imaging.radiograph import ImageError, decode_radiograph

PICTURE = files.radiograph()


# --- what is refused -------------------------------------------------------------------------------------------------

UNSUPPORTED = {
    "deflated": "1.2.840.10008.1.2.1.99",
    "JPIP deflated": "1.2.840.10008.1.2.4.95",
    "big endian": "1.2.840.10008.1.2.2",
    "MPEG-4": "1.2.840.10008.1.2.4.102",
    "private": "1.2.3.4.5",
    "missing": None,
}


@pytest.mark.fault("I31")
@pytest.mark.parametrize("kind", UNSUPPORTED)
def test_unsupported_encodings_are_refused_after_group_2(kind):
    assert error_code(files.dicom_start(UNSUPPORTED[kind]) + b"never read") == "dicom_compression"


@pytest.mark.fault("I31")
def test_a_deflate_bomb_costs_no_memory():
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


@pytest.mark.fault("I32", "I33", "I34", "I36")
@pytest.mark.parametrize(("tags", "code"), REFUSED_TAGS)
def test_headers_are_refused_before_decoding(tags, code):
    tracemalloc.start()
    try:
        assert error_code(files.dicom(PICTURE, **tags)) == code
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.fault("I33")
def test_float_pixels_reports_and_directories_are_refused():
    dataset = files.dicom_dataset(PICTURE, PixelData=None)
    dataset.FloatPixelData = PICTURE.astype(np.float32).tobytes()
    assert error_code(files.dicom_bytes(dataset)) == "dicom_no_picture"
    meta = files.element((2, 2), b"UI", b"1.2.840.10008.1.3.10") + files.element(
        (2, 0x10), b"UI", b"1.2.840.10008.1.2.1\0"
    )
    assert error_code(bytes(128) + b"DICM" + meta) == "dicom_directory"


@pytest.mark.fault("I37")
def test_cut_dicom_is_never_half_a_picture():
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


@pytest.mark.fault("I37")
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_structures_are_contained(kind):
    assert error_code(HOSTILE[kind]) in ("damaged", "dicom_no_picture", "dicom_compression")


@pytest.mark.fault("I37")
@pytest.mark.parametrize("kind", [*MANY_PARTS, "lookup table"])
def test_a_file_of_tiny_parts_never_reaches_the_reader(kind, monkeypatch):
    """pydicom takes 53 s and 2 GB for 30 MB of empty items."""
    monkeypatch.setattr("cxr.imaging.dicom.pydicom.dcmread", lambda *_, **__: pytest.fail("was read"))
    parts = MANY_PARTS.get(kind, LOOKUP_TABLE)
    with pytest.raises(ImageError, match="too long" if kind == "lookup table" else "more than 10000 parts") as caught:
        decode_radiograph(files.dicom_start() + parts)
    assert caught.value.code == "damaged"


@pytest.mark.fault("I37")
@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.IMPLICIT])
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_around_the_needed_elements_are_stepped_over(syntax, undefined):
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


@pytest.mark.fault("I37")
def test_an_unknown_sequence_of_undefined_length_is_implicit_inside():
    """PS3.5, 6.2.2, note 4: Rows inside looks like an element of another length where it is read as explicit."""
    inside = item(struct.pack("<HHI", 0x28, 0x10, 2) + b"\x07\x00", 0xFFFFFFFF)
    inside += struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    data = files.dicom(PICTURE)
    place = data.index(struct.pack("<HH2s", 8, 0x60, b"CS"))
    data = data[:place] + files.element((8, 0x59), b"UN", b"", 0xFFFFFFFF) + inside + data[place:]
    np.testing.assert_array_equal(decode_radiograph(data), PICTURE)


@pytest.mark.fault("I37")
@pytest.mark.parametrize("preamble", [b"MZ", b"\x7fELF", b"II*\x00"])
def test_the_preamble_is_not_looked_at(preamble):
    data = files.dicom(PICTURE)
    np.testing.assert_array_equal(decode_radiograph(preamble.ljust(128, b"\x00") + data[128:]), PICTURE)


@pytest.mark.fault("I37")
def test_files_that_lost_their_start_are_read():
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
