"""The decoder for PNG and JPEG, and what all formats share. Test names carry the ids of the table of image faults."""

import os
import pickle
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import radiographs as files
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from cxr.imaging.limits import ERROR_STATUS, MAX_FILE_BYTES, check_sides
from cxr.imaging.radiograph import ImageError, decode_radiograph, decode_with_notices, read_radiograph, to_model_input

PICTURE = files.radiograph()


def error_code(data: bytes) -> str:
    """Decode what must be refused, and return the code; each code has its status and its sentence says what to do."""
    with pytest.raises(ImageError) as caught:
        decode_radiograph(data)
    assert caught.value.status == ERROR_STATUS[caught.value.code]
    assert len(str(caught.value)) > 30
    assert "\n" not in str(caught.value)
    return caught.value.code


def assert_whole_or_refused(data: bytes, whole: np.ndarray) -> bool:
    """Decode a damaged file: the identical picture or an ImageError, nothing between. Return whether it was decoded."""
    try:
        decoded = decode_radiograph(data)
    except ImageError:
        return False
    np.testing.assert_array_equal(decoded, whole)
    return True


def pillow_grey(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("L"))


# --- what a picture decodes to ---------------------------------------------------------------------------------------


def test_I01_grey_and_equal_channels_give_the_same_picture():
    rgb = np.repeat(PICTURE[..., None], 3, axis=2)
    for data in (files.png(PICTURE), files.png(rgb, colour_type=files.RGB), files.pillow_bytes(PICTURE, "PNG")):
        radiograph, notices, file_type = decode_with_notices(data)
        np.testing.assert_array_equal(radiograph, PICTURE)
        assert (radiograph.dtype, notices, file_type) == (np.uint8, (), "png")
    jpeg, _, file_type = decode_with_notices(files.pillow_bytes(PICTURE, quality=95))
    from_rgb = decode_radiograph(files.pillow_bytes(rgb, quality=95, subsampling=0))
    assert file_type == "jpeg"
    assert np.abs(jpeg.astype(int) - from_rgb).max() <= 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_blocks": 2}])
def test_I01_jpeg_equals_pillow(options):
    data = files.pillow_bytes(PICTURE, **options)
    np.testing.assert_array_equal(decode_radiograph(data), pillow_grey(data))


def test_I02_full_range_16_bit_is_scaled_by_closed_form():
    ramp = files.ramp(16)
    expected = (ramp.astype(np.int64) * 510 + 65535) // (2 * 65535)  # round(v * 255 / 65535) in integers
    radiograph, notices, _ = decode_with_notices(files.png(ramp, depth=16))
    np.testing.assert_array_equal(radiograph, expected)
    assert notices == ()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_I02_fewer_bits_in_16_are_scaled_from_their_own_full_scale(bits):
    ramp = files.ramp(bits)
    radiograph, notices, _ = decode_with_notices(files.png(ramp, depth=16))
    assert np.abs(radiograph - ramp * (255 / (2**bits - 1))).max() <= 0.5
    assert notices == (f"The 16-bit picture uses {bits} bits only; the full scale of {bits} bits was taken as white.",)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (100, 140), (60, 255)])
@pytest.mark.parametrize("colour_type", [files.GREY, files.RGB, files.GREY_ALPHA, files.RGBA])
def test_I02_16_bit_equals_its_8_bit_twin(low, high, colour_type):
    twin = np.rint(low + PICTURE * ((high - low) / 255)).astype(np.uint16)
    channels = {files.GREY: 1, files.RGB: 3, files.GREY_ALPHA: 1, files.RGBA: 3}[colour_type]
    samples = np.repeat((twin * 257)[..., None], channels, axis=2)
    if colour_type in (files.GREY_ALPHA, files.RGBA):
        samples = np.dstack([samples, np.full_like(twin, 65535)])
    assert np.abs(decode_radiograph(files.png(samples, 16, colour_type)) - twin.astype(int)).max() <= 1


def test_I02_8_bit_values_in_16_bits_are_taken_as_they_are():
    np.testing.assert_array_equal(decode_radiograph(files.png(PICTURE.astype(np.uint16), depth=16)), PICTURE)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_I03_few_bits_are_spread_over_the_range_with_a_notice(depth):
    samples = PICTURE >> (8 - depth)
    radiograph, notices, _ = decode_with_notices(files.png(samples, depth))
    np.testing.assert_array_equal(radiograph, samples * (255 // (2**depth - 1)))
    assert notices == (
        f"This picture has only {2**depth} grey levels; a radiograph has 256 or more, and detail is lost.",
    )


def test_I03_palette_and_its_transparency():
    palette = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
    entries = files.chunk(b"PLTE", palette.tobytes())
    np.testing.assert_array_equal(
        decode_radiograph(files.png(PICTURE, colour_type=files.PALETTE, before=entries)), 255 - PICTURE
    )
    alpha = np.where(np.arange(256) < 100, 0, 255).astype(np.uint8)
    data = files.png(PICTURE, colour_type=files.PALETTE, before=entries + files.chunk(b"tRNS", alpha.tobytes()))
    np.testing.assert_array_equal(decode_radiograph(data), np.where(PICTURE < 100, 0, 255 - PICTURE))


@pytest.mark.parametrize(("depth", "key"), [(8, 77), (16, 77), (4, 7)])
def test_I03_transparent_grey_level_is_black(depth, key):
    samples = (PICTURE >> 4) if depth == 4 else PICTURE
    data = files.png(samples, depth, before=files.chunk(b"tRNS", struct.pack(">H", key)))
    expected = np.where(samples == key, 0, samples) * (17 if depth == 4 else 1)
    np.testing.assert_array_equal(decode_radiograph(data), expected)


@pytest.mark.parametrize("colour_type", [files.GREY_ALPHA, files.RGBA])
def test_I04_alpha_is_composited_on_black(colour_type):
    alpha = files.radiograph(seed=1)
    colour = np.repeat(PICTURE[..., None], 1 if colour_type == files.GREY_ALPHA else 3, axis=2)
    decoded = decode_radiograph(files.png(np.dstack([colour, alpha]), colour_type=colour_type))
    assert np.abs(decoded - PICTURE.astype(float) * alpha / 255).max() <= 0.5
    opaque = files.png(np.dstack([colour, np.full_like(alpha, 255)]), colour_type=colour_type)
    np.testing.assert_array_equal(decode_radiograph(opaque), PICTURE)
    assert error_code(files.png(np.dstack([colour, np.zeros_like(alpha)]), colour_type=colour_type)) == "blank"


def test_I05_cmyk_jpeg_is_refused():
    data = files.pillow_bytes(np.repeat(PICTURE[..., None], 3, axis=2), mode="CMYK")
    assert error_code(data) == "jpeg_kind"


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_I06_colours_give_a_notice(file_format):
    photograph = np.dstack([files.radiograph(seed=seed) for seed in (1, 2, 3)])
    data = files.pillow_bytes(photograph, file_format)
    radiograph, notices, _ = decode_with_notices(data)
    assert notices == ("This picture has colours; a radiograph has none.",)
    assert np.abs(radiograph.astype(int) - pillow_grey(data)).max() <= 1
    marked = np.repeat(files.radiograph(256, 256)[..., None], 3, axis=2)
    marked[2:8, 2:8] = (255, 0, 0)  # a coloured mark in the corner is no photograph
    assert decode_with_notices(files.pillow_bytes(marked, file_format))[1] == ()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_I07_exif_orientation_is_applied(orientation, order):
    exif = files.exif_block(orientation, order)
    as_png = files.png(PICTURE, before=files.chunk(b"eXIf", exif))
    as_jpeg = files.pillow_bytes(PICTURE, exif=b"Exif\x00\x00" + exif)
    for data in (as_png, as_jpeg):
        np.testing.assert_array_equal(decode_radiograph(data), ImageOps.exif_transpose(Image.open(BytesIO(data))))


@pytest.mark.parametrize(
    "exif", [b"", b"II*\x00", b"II*\x00\xff\xff\xff\xff", files.exif_block(9), files.exif_block(6)[:-9]]
)
def test_I07_broken_exif_is_ignored(exif):
    np.testing.assert_array_equal(decode_radiograph(files.png(PICTURE, before=files.chunk(b"eXIf", exif))), PICTURE)


def test_I16_bytes_after_the_end_are_ignored():
    for data in (files.png(PICTURE), files.pillow_bytes(PICTURE)):
        np.testing.assert_array_equal(
            decode_radiograph(data + b"<script>alert(1)</script>" + data), decode_radiograph(data)
        )


def test_I17_metadata_is_not_read_or_shown(capfd):
    secret = b"DOE^JANE"
    text = files.chunk(b"tEXt", b"Comment\x00" + secret) + files.chunk(b"iCCP", b"x\x00\x00" + zlib.compress(secret))
    assert decode_with_notices(files.png(PICTURE, before=text))[1] == ()
    jpeg = files.pillow_bytes(PICTURE, comment=secret, exif=b"Exif\x00\x00" + secret, icc_profile=secret)
    np.testing.assert_array_equal(decode_radiograph(jpeg), pillow_grey(jpeg))
    assert capfd.readouterr() == ("", "")


def test_I23_noise_decodes_and_blank_pictures_are_refused():
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


@pytest.mark.parametrize("file_format", OTHER_FORMATS)
def test_I08_other_picture_formats_are_refused(file_format):
    assert error_code(files.pillow_bytes(PICTURE, file_format)) == "type"


@pytest.mark.parametrize("data", [*NOT_PICTURES, b"\x7fELF" + bytes(500), b"MZ" + bytes(500), b"8BPS" + bytes(99)])
def test_I11_other_files_are_refused(data):
    assert error_code(data) == "type"


def test_I09_more_than_one_picture_is_refused():
    assert error_code(files.png(PICTURE, before=files.chunk(b"acTL", bytes(8)))) == "several_pictures"
    frames = {"append_images": [Image.fromarray(PICTURE[::-1])], "save_all": True}
    for file_format in ("MPO", "PNG"):
        assert error_code(files.pillow_bytes(PICTURE, file_format, **frames)) == "several_pictures"


def test_I10_empty_file_is_refused():
    assert error_code(b"") == "empty"


def test_I12_the_content_decides_and_not_the_name(tmp_path):
    path = tmp_path / "radiograph.jpg.exe"
    path.write_bytes(files.png(PICTURE))
    np.testing.assert_array_equal(read_radiograph(path), PICTURE)
    np.testing.assert_array_equal(read_radiograph(str(path)), PICTURE)


def test_I13_cut_png_is_never_half_a_picture():
    picture = files.radiograph(200, 180)
    for depth, whole in ((8, picture), (16, picture.astype(np.uint16) * 257)):
        data = files.png(whole, depth, num_idat=8)
        ends = [position - 4 for position in range(len(data)) if data[position : position + 4] in (b"IDAT", b"IEND")]
        offsets = np.random.default_rng(13).integers(0, len(data), 200)
        decoded = [assert_whole_or_refused(data[:offset], picture) for offset in [*ends, *offsets]]
        assert not any(decoded)


@pytest.mark.parametrize("progressive", [False, True])
def test_I14_cut_jpeg_is_never_half_a_picture(progressive):
    data = files.pillow_bytes(files.radiograph(200, 180), progressive=progressive)
    for offset in [*np.random.default_rng(14).integers(1, len(data), 200), len(data) - 1, len(data) - 2]:
        assert error_code(data[:offset]) in ("damaged", "type")


def broken_pngs() -> dict[str, bytes]:
    """Return PNGs with one fault each; all but the first two have right checksums."""
    good = files.png(PICTURE)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    rows = files.png_rows(PICTURE, 8)
    head, end = files.png_header(80, 96), files.chunk(b"IEND")
    packed = zlib.compress(rows)
    idat = [files.chunk(b"IDAT", packed[:500]), files.chunk(b"IDAT", packed[500:])]
    palette = files.chunk(b"PLTE", bytes(768))
    return {
        "flipped bit": bytes(flipped),
        "wrong checksum": good[:-1] + b"\x00",
        "too few pixels": head + files.chunk(b"IDAT", zlib.compress(rows[:3000])) + end,
        "no zlib data": head + files.chunk(b"IDAT", b"not zlib at all") + end,
        "wrong adler": head + files.chunk(b"IDAT", packed[:-1] + b"\x00") + end,
        "wrong filter": head + files.chunk(b"IDAT", zlib.compress(b"\x09" + rows[1:])) + end,
        "pixels apart": head + idat[0] + files.chunk(b"tEXt", b"a\x00b") + idat[1] + end,
        "pixels swapped": head + idat[1] + idat[0] + end,
        "no pixels": head + end,
        "no header": files.PNG_SIGNATURE + idat[0] + idat[1] + end,
        "two headers": head + head[8:] + idat[0] + idat[1] + end,
        "two palettes": files.png_header(80, 96, 8, 3) + palette * 2 + idat[0] + idat[1] + end,
        "no palette": files.png_header(80, 96, 8, 3) + idat[0] + idat[1] + end,
        "depth 3": files.png_header(80, 96, 3) + idat[0] + idat[1] + end,
        "colour type 5": files.png_header(80, 96, 8, 5) + idat[0] + idat[1] + end,
        "unknown critical chunk": head + files.chunk(b"EVIL") + idat[0] + idat[1] + end,
        "length beyond the file": head + b"\x7f\xff\xff\xffIDAT" + packed,
    }


@pytest.mark.parametrize("fault", broken_pngs())
def test_I15_broken_png_is_refused(fault):
    assert error_code(broken_pngs()[fault]) == "damaged"


def broken_jpegs() -> dict[str, bytes]:
    """Return JPEGs with one fault each."""
    good = files.pillow_bytes(PICTURE)
    frame, scan = good.index(b"\xff\xc0"), good.index(b"\xff\xda")
    size = struct.unpack_from(">H", good, frame + 2)[0] + 2
    return {
        "no frame": good[:frame] + good[frame + size :],
        "two frames": good[:frame] + good[frame : frame + size] * 2 + good[frame + size :],
        "no scan": good[:scan] + b"\xff\xd9",
        "start twice": good[:2] + good,
        "segment beyond the file": good[:2] + b"\xff\xe0\xff\xff" + good[2:99],
        "segment of length 1": good[:2] + b"\xff\xe0\x00\x01" + good[2:],
        "no marker": good[:frame] + b"abc" + good[frame:],
        "fill without end": good[:2] + b"\xff" * 100_000,
        "no quantisation table": good[:20] + good[frame:],
        "10,001 segments": good[:2] + files.jpeg_segment(0xFE, b"") * 10_001 + good[2:],
    }


@pytest.mark.parametrize("fault", broken_jpegs())
def test_I14_broken_jpeg_is_refused(fault):
    assert error_code(broken_jpegs()[fault]) == "damaged"


def sized_jpeg(width: int, height: int, frame: int = 0xC0, bits: int = 8) -> bytes:
    """Return a JPEG that declares another size, kind or depth than it has."""
    data = files.pillow_bytes(PICTURE)
    at = data.index(b"\xff\xc0")
    return data[: at + 1] + struct.pack(">B2sBHH", frame, data[at + 2 : at + 4], bits, height, width) + data[at + 9 :]


@pytest.mark.parametrize("declared", [{"frame": 0xC3}, {"frame": 0xC9}, {"frame": 0xC1, "bits": 12}, {"frame": 0xF7}])
def test_rare_kinds_of_jpeg_are_refused(declared):
    assert error_code(sized_jpeg(80, 96, **declared)) == "jpeg_kind"


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


@pytest.mark.parametrize(("width", "height", "code"), BAD_SIZES)
def test_I18_I19_I22_declared_size_is_refused_before_decoding(width, height, code):
    # The pixels are missing: whoever tried to decode them would say "damaged" instead.
    assert error_code(files.png_header(width, height)) == code
    if max(width, height) < 65536:
        assert error_code(sized_jpeg(width, height)) == code


def test_I22_limits_are_inclusive():
    for width, height in ((64, 64), (64, 256), (6_000, 6_000), (10_000, 3_600)):
        check_sides(width, height)
    for depth, colour_type in ((16, files.RGBA), (16, files.GREY_ALPHA)):
        assert error_code(files.png_header(6_000, 6_000, depth, colour_type)) == "too_large"  # 288 MB of samples


@pytest.mark.parametrize("side", [9_381, 30_000])
def test_I18_I19_a_real_png_bomb_costs_no_memory(side):
    bomb = files.png_of_zeros(side, side)
    tracemalloc.start()
    try:
        assert error_code(bomb) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_I20_bombs_in_metadata_are_not_unpacked():
    bomb = zlib.compress(bytes(50_000_000))
    chunks = files.chunk(b"zTXt", b"a\x00\x00" + bomb) + files.chunk(b"iCCP", b"a\x00\x00" + bomb)
    data = files.png(PICTURE, before=chunks)
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(decode_radiograph(data), PICTURE)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert error_code(files.png(PICTURE, before=files.chunk(b"tEXt", b"a\x00b") * 200_000)) == "damaged"


@pytest.mark.parametrize(
    ("num_scans", "code"), [(1_006, "too_many_scans"), (10_000, "too_many_scans"), (42, "damaged"), (1, None)]
)
def test_I21_scans_are_counted_before_decoding(num_scans, code):
    data = files.jpeg_with_scans(num_scans)  # 42 repeated scans are few enough to be decoded, and no valid JPEG
    if code is None:
        assert decode_radiograph(data).shape == PICTURE.shape
    else:
        assert error_code(data) == code


@pytest.mark.slow
def test_I24_the_largest_picture_decodes():
    noise = np.random.default_rng(0).integers(0, 256, (6_000, 6_000), dtype=np.uint8)
    assert (decode_radiograph(files.pillow_bytes(noise, "PNG", compress_level=1)) == noise).all()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    start=st.sampled_from([files.PNG_SIGNATURE, b"\xff\xd8\xff", bytes(128) + b"DICM", b"\x08\x00"]), rest=st.binary()
)
def test_I25_bytes_after_a_signature_are_refused(start, rest):
    with pytest.raises(ImageError):
        decode_radiograph(start + rest)


WHOLE = {"png": files.png(PICTURE), "jpeg": files.pillow_bytes(PICTURE), "dicom": files.dicom(PICTURE)}


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_I25_changed_bytes_give_a_picture_or_an_error(kind, changes):
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


# --- real files ------------------------------------------------------------------------------------------------------

needs_real_data = pytest.mark.skipif("CXR_REAL_DATA" not in os.environ, reason="CXR_REAL_DATA names no folder")


@needs_real_data
def test_I01_real_pngs_equal_pillow():
    folder = Path(os.environ["CXR_REAL_DATA"])
    originals, small = (
        sorted((folder / "images-1024").glob("*.png")),
        sorted((folder / "images-256").glob("*.png"))[::10],
    )
    assert originals
    assert small
    for path in originals + small:
        data = path.read_bytes()
        radiograph, notices, file_type = decode_with_notices(data)
        assert (notices, file_type) == ((), "png"), path.name
        np.testing.assert_array_equal(radiograph, pillow_grey(data), path.name)
