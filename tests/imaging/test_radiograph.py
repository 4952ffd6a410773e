"""The decoder for PNG and JPEG, and what all formats share. Test names carry the ids of the table of image faults."""

import os
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import radiographs as files
from broken_pictures import error_code, pillow_grey, sized_jpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr.imaging.limits import MAX_FILE_BYTES, check_sides
from cxr.imaging.radiograph import ImageError, decode_radiograph, decode_with_notices, read_radiograph, to_model_input

PICTURE = files.radiograph()


@pytest.mark.fault("I06")
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_colours_give_a_notice(file_format):
    photograph = np.dstack([files.radiograph(seed=seed) for seed in (1, 2, 3)])
    data = files.pillow_bytes(photograph, file_format)
    radiograph, notices, _ = decode_with_notices(data)
    assert notices == ("This picture has colours; a radiograph has none.",)
    assert np.abs(radiograph.astype(int) - pillow_grey(data)).max() <= 1
    marked = np.repeat(files.radiograph(256, 256)[..., None], 3, axis=2)
    marked[2:8, 2:8] = (255, 0, 0)  # a coloured mark in the corner is no photograph
    assert decode_with_notices(files.pillow_bytes(marked, file_format))[1] == ()


@pytest.mark.fault("I16")
def test_bytes_after_the_end_are_ignored():
    for data in (files.png(PICTURE), files.pillow_bytes(PICTURE)):
        np.testing.assert_array_equal(
            decode_radiograph(data + b"<script>alert(1)</script>" + data), decode_radiograph(data)
        )


@pytest.mark.fault("I17")
def test_metadata_is_not_read_or_shown(capfd):
    secret = b"DOE^JANE"
    text = files.chunk(b"tEXt", b"Comment\x00" + secret) + files.chunk(b"iCCP", b"x\x00\x00" + zlib.compress(secret))
    assert decode_with_notices(files.png(PICTURE, before=text))[1] == ()
    jpeg = files.pillow_bytes(PICTURE, comment=secret, exif=b"Exif\x00\x00" + secret, icc_profile=secret)
    np.testing.assert_array_equal(decode_radiograph(jpeg), pillow_grey(jpeg))
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault("I23")
def test_noise_decodes_and_blank_pictures_are_refused():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    np.testing.assert_array_equal(decode_radiograph(files.png(noise)), noise)
    for value in (0, 128, 255):
        blank = np.full((128, 128), value, np.uint8)
        assert error_code(files.png(blank)) == error_code(files.pillow_bytes(blank)) == "blank"
        blank[3:8, 3:8] = 255 - value  # a letter on an empty film is still an empty film
        assert error_code(files.png(blank)) == "blank"


# --- what is refused, and that it costs little -----------------------------------------------------------------------

OTHER_FORMATS = ["GIF", "WEBP", "TIFF", "BMP", "ICO", "PDF", "EPS", "JPEG2000", "PPM", "TGA", "AVIF"]


NOT_PICTURES = [b"\x89PN", b"\xff\xd8", b"hello world " * 99, b"<svg/>", b"<html>" * 99, b"PK\x03\x04" * 99]


@pytest.mark.fault("I08")
@pytest.mark.parametrize("file_format", OTHER_FORMATS)
def test_other_picture_formats_are_refused(file_format):
    assert error_code(files.pillow_bytes(PICTURE, file_format)) == "type"


@pytest.mark.fault("I11")
@pytest.mark.parametrize("data", [*NOT_PICTURES, b"\x7fELF" + bytes(500), b"MZ" + bytes(500), b"8BPS" + bytes(99)])
def test_other_files_are_refused(data):
    assert error_code(data) == "type"


@pytest.mark.fault("I10")
def test_empty_file_is_refused():
    assert error_code(b"") == "empty"


@pytest.mark.fault("I12")
def test_the_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "radiograph.jpg.exe"
    path.write_bytes(files.png(PICTURE))
    np.testing.assert_array_equal(read_radiograph(path), PICTURE)
    np.testing.assert_array_equal(read_radiograph(str(path)), PICTURE)


BAD_SIZES = [
    (30_000, 30_000, "too_large"),
    (8_000, 11_000, "too_large"),  # 88 million pixels, one below Pillow's warning
    (10_001, 3_000, "too_large"),
    (6_001, 6_000, "too_large"),
    (2**31 - 1, 1, "too_small"),
    (2**31 - 1, 2**31 - 1, "too_large"),
    (0, 0, "too_small"),
    (1, 1, "too_small"),
    (63, 63, "too_small"),
    (60_000, 1, "too_small"),
    (1, 60_000, "too_small"),
    (64, 257, "aspect"),
    (257, 64, "aspect"),
]


@pytest.mark.fault("I18", "I19", "I22")
@pytest.mark.parametrize(("width", "height", "code"), BAD_SIZES)
def test_declared_size_is_refused_before_decoding(width, height, code):
    # The pixels are missing: whoever tried to decode them would say "damaged" instead.
    assert error_code(files.png_header(width, height)) == code
    if max(width, height) < 65536:
        assert error_code(sized_jpeg(width, height)) == code


@pytest.mark.fault("I22")
def test_limits_are_inclusive():
    for width, height in ((64, 64), (64, 256), (6_000, 6_000), (10_000, 3_600)):
        check_sides(width, height)
    for depth, colour_type in ((16, files.RGBA), (16, files.GREY_ALPHA)):
        assert error_code(files.png_header(6_000, 6_000, depth, colour_type)) == "too_large"  # 288 MB of samples


@pytest.mark.fault("I24")
@pytest.mark.slow
def test_the_largest_picture_decodes():
    noise = np.random.default_rng(0).integers(0, 256, (6_000, 6_000), dtype=np.uint8)
    assert (decode_radiograph(files.pillow_bytes(noise, "PNG", compress_level=1)) == noise).all()


@pytest.mark.fault("I25")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    start=st.sampled_from([files.PNG_SIGNATURE, b"\xff\xd8\xff", bytes(128) + b"DICM", b"\x08\x00"]), rest=st.binary()
)
def test_bytes_after_a_signature_are_refused(start, rest):
    with pytest.raises(ImageError):
        decode_radiograph(start + rest)


WHOLE = {"png": files.png(PICTURE), "jpeg": files.pillow_bytes(PICTURE), "dicom": files.dicom(PICTURE)}


@pytest.mark.fault("I25")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_changed_bytes_give_a_picture_or_an_error(kind, changes):
    data = bytearray(WHOLE[kind])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        radiograph = decode_radiograph(bytes(data))
    except ImageError:
        return
    assert radiograph.dtype == np.uint8
    assert min(radiograph.shape) >= 64
    if kind == "png":  # checksums: nothing but the original passes
        np.testing.assert_array_equal(radiograph, PICTURE)


def test_threads_do_not_mix_pictures():
    pictures = [files.radiograph(seed=seed) for seed in range(8)]
    kinds = [files.png, files.pillow_bytes, files.dicom, lambda p: files.dicom_compressed(p, 8, files.JPEG_2000)]
    data = [kind(picture) for picture in pictures for kind in kinds]
    alone = [decode_radiograph(one) for one in data]
    with ThreadPoolExecutor(4) as pool:
        for together, expected in zip(pool.map(decode_radiograph, data), alone, strict=True):
            np.testing.assert_array_equal(together, expected)


# --- files, model input, errors --------------------------------------------------------------------------------------


def test_read_radiograph_takes_regular_files_of_bounded_size(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_radiograph(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    for name, code in (("pipe.png", "type"), ("huge.png", "too_large"), (".", "type")):
        with pytest.raises(ImageError) as caught:
            read_radiograph(tmp_path / name)
        assert caught.value.code == code
        assert str(tmp_path) not in str(caught.value)


def test_model_input_averages_whole_blocks():
    blocks = np.random.default_rng(0).integers(0, 256, (64, 64))
    large = np.kron(blocks, np.ones((4, 2), int)).astype(np.uint8)  # 256 x 128, not square
    model_input = to_model_input(large, 64)
    assert (model_input.shape, model_input.dtype) == ((64, 64, 1), np.uint8)
    np.testing.assert_array_equal(model_input[..., 0], blocks)
    np.testing.assert_array_equal(to_model_input(large, 32)[..., 0], cv2.resize(large, (32, 32), interpolation=3))


def test_model_input_grows_sides_linearly_and_keeps_equal_sizes():
    rows = np.repeat(
        np.arange(0, 256, 4, dtype=np.uint8)[:, None], 256, axis=1
    )  # 64 x 256: one side grows, one shrinks
    model_input = to_model_input(rows, 128)[..., 0]
    expected = np.clip((np.arange(128) + 0.5) / 2 - 0.5, 0, 63) * 4  # half-pixel centres
    assert np.abs(model_input - expected[:, None]).max() <= 1
    np.testing.assert_array_equal(to_model_input(PICTURE[:80], 80)[..., 0], PICTURE[:80])


@pytest.mark.parametrize("wrong", [PICTURE[..., None], PICTURE.astype(np.float32)])
def test_model_input_refuses_what_is_no_radiograph(wrong):
    with pytest.raises(ValueError, match="Expected a radiograph"):
        to_model_input(wrong, 64)


def test_image_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("blank", "The picture is blank.")))  # noqa: S301 - our own bytes
    assert (error.code, error.status, str(error)) == ("blank", 422, "The picture is blank.")
