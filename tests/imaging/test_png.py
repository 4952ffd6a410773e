"""PNG files against Pillow, closed forms, cuts, lies and bombs."""

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import radiographs as files
from broken_pictures import assert_whole_or_refused, broken_pngs, error_code, pillow_grey
from PIL import Image

from cxr.imaging.radiograph import decode_radiograph, decode_with_notices

PICTURE = files.radiograph()


# --- real files ------------------------------------------------------------------------------------------------------

needs_real_data = pytest.mark.skipif("CXR_REAL_DATA" not in os.environ, reason="CXR_REAL_DATA names no folder")


# --- what a picture decodes to ---------------------------------------------------------------------------------------


@pytest.mark.fault("I01")
def test_grey_and_equal_channels_give_the_same_picture():
    rgb = np.repeat(PICTURE[..., None], 3, axis=2)
    for data in (files.png(PICTURE), files.png(rgb, colour_type=files.RGB), files.pillow_bytes(PICTURE, "PNG")):
        radiograph, notices, file_type = decode_with_notices(data)
        np.testing.assert_array_equal(radiograph, PICTURE)
        assert (radiograph.dtype, notices, file_type) == (np.uint8, (), "png")
    jpeg, _, file_type = decode_with_notices(files.pillow_bytes(PICTURE, quality=95))
    from_rgb = decode_radiograph(files.pillow_bytes(rgb, quality=95, subsampling=0))
    assert file_type == "jpeg"
    assert np.abs(jpeg.astype(int) - from_rgb).max() <= 1


@pytest.mark.fault("I02")
def test_full_range_16_bit_is_scaled_by_closed_form():
    ramp = files.ramp(16)
    expected = (ramp.astype(np.int64) * 510 + 65535) // (2 * 65535)  # round(v * 255 / 65535) in integers
    radiograph, notices, _ = decode_with_notices(files.png(ramp, depth=16))
    np.testing.assert_array_equal(radiograph, expected)
    assert notices == ()


@pytest.mark.fault("I02")
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_16_are_scaled_from_their_own_full_scale(bits):
    ramp = files.ramp(bits)
    radiograph, notices, _ = decode_with_notices(files.png(ramp, depth=16))
    assert np.abs(radiograph - ramp * (255 / (2**bits - 1))).max() <= 0.5
    assert notices == (f"The 16-bit picture uses {bits} bits only; the full scale of {bits} bits was taken as white.",)


@pytest.mark.fault("I02")
@pytest.mark.parametrize(("low", "high"), [(0, 255), (100, 140), (60, 255)])
@pytest.mark.parametrize("colour_type", [files.GREY, files.RGB, files.GREY_ALPHA, files.RGBA])
def test_16_bit_equals_its_8_bit_counterpart(low, high, colour_type):
    counterpart = np.rint(low + PICTURE * ((high - low) / 255)).astype(np.uint16)
    channels = {files.GREY: 1, files.RGB: 3, files.GREY_ALPHA: 1, files.RGBA: 3}[colour_type]
    samples = np.repeat((counterpart * 257)[..., None], channels, axis=2)
    if colour_type in (files.GREY_ALPHA, files.RGBA):
        samples = np.dstack([samples, np.full_like(counterpart, 65535)])
    assert np.abs(decode_radiograph(files.png(samples, 16, colour_type)) - counterpart.astype(int)).max() <= 1


@pytest.mark.fault("I02")
def test_8_bit_values_in_16_bits_are_taken_as_they_are():
    np.testing.assert_array_equal(decode_radiograph(files.png(PICTURE.astype(np.uint16), depth=16)), PICTURE)


@pytest.mark.fault("I03")
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_are_spread_over_the_range_with_a_notice(depth):
    samples = PICTURE >> (8 - depth)
    radiograph, notices, _ = decode_with_notices(files.png(samples, depth))
    np.testing.assert_array_equal(radiograph, samples * (255 // (2**depth - 1)))
    assert notices == (
        f"This picture has only {2**depth} grey levels; a radiograph has 256 or more, and detail is lost.",
    )


@pytest.mark.fault("I03")
def test_palette_and_its_transparency():
    palette = np.repeat(np.arange(255, -1, -1, dtype=np.uint8)[:, None], 3, axis=1)
    entries = files.chunk(b"PLTE", palette.tobytes())
    np.testing.assert_array_equal(
        decode_radiograph(files.png(PICTURE, colour_type=files.PALETTE, before=entries)), 255 - PICTURE
    )
    alpha = np.where(np.arange(256) < 100, 0, 255).astype(np.uint8)
    data = files.png(PICTURE, colour_type=files.PALETTE, before=entries + files.chunk(b"tRNS", alpha.tobytes()))
    np.testing.assert_array_equal(decode_radiograph(data), np.where(PICTURE < 100, 0, 255 - PICTURE))


@pytest.mark.fault("I03")
@pytest.mark.parametrize(("depth", "key"), [(8, 77), (16, 77), (4, 7)])
def test_transparent_grey_level_is_black(depth, key):
    samples = (PICTURE >> 4) if depth == 4 else PICTURE
    data = files.png(samples, depth, before=files.chunk(b"tRNS", struct.pack(">H", key)))
    expected = np.where(samples == key, 0, samples) * (17 if depth == 4 else 1)
    np.testing.assert_array_equal(decode_radiograph(data), expected)


@pytest.mark.fault("I04")
@pytest.mark.parametrize("colour_type", [files.GREY_ALPHA, files.RGBA])
def test_alpha_is_composited_on_black(colour_type):
    alpha = files.radiograph(seed=1)
    colour = np.repeat(PICTURE[..., None], 1 if colour_type == files.GREY_ALPHA else 3, axis=2)
    decoded = decode_radiograph(files.png(np.dstack([colour, alpha]), colour_type=colour_type))
    assert np.abs(decoded - PICTURE.astype(float) * alpha / 255).max() <= 0.5
    opaque = files.png(np.dstack([colour, np.full_like(alpha, 255)]), colour_type=colour_type)
    np.testing.assert_array_equal(decode_radiograph(opaque), PICTURE)
    assert error_code(files.png(np.dstack([colour, np.zeros_like(alpha)]), colour_type=colour_type)) == "blank"


@pytest.mark.fault("I09")
def test_more_than_one_picture_is_refused():
    assert error_code(files.png(PICTURE, before=files.chunk(b"acTL", bytes(8)))) == "several_pictures"
    frames = {"append_images": [Image.fromarray(PICTURE[::-1])], "save_all": True}
    for file_format in ("MPO", "PNG"):
        assert error_code(files.pillow_bytes(PICTURE, file_format, **frames)) == "several_pictures"


@pytest.mark.fault("I13")
def test_cut_png_is_never_half_a_picture():
    picture = files.radiograph(200, 180)
    for depth, whole in ((8, picture), (16, picture.astype(np.uint16) * 257)):
        data = files.png(whole, depth, num_idat=8)
        ends = [position - 4 for position in range(len(data)) if data[position : position + 4] in (b"IDAT", b"IEND")]
        offsets = np.random.default_rng(13).integers(0, len(data), 200)
        decoded = [assert_whole_or_refused(data[:offset], picture) for offset in [*ends, *offsets]]
        assert not any(decoded)


@pytest.mark.fault("I15")
@pytest.mark.parametrize("fault", broken_pngs())
def test_broken_png_is_refused(fault):
    assert error_code(broken_pngs()[fault]) == "damaged"


@pytest.mark.fault("I18", "I19")
@pytest.mark.parametrize("side", [9_381, 30_000])
def test_a_real_png_bomb_costs_no_memory(side):
    bomb = files.png_of_zeros(side, side)
    tracemalloc.start()
    try:
        assert error_code(bomb) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.fault("I20")
def test_bombs_in_metadata_are_not_unpacked():
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


@pytest.mark.fault("I01")
@needs_real_data
def test_real_pngs_equal_pillow():
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


@pytest.mark.fault("I02")
def test_mutation_a_decoder_that_clips_16_bits_is_noticed(monkeypatch):
    monkeypatch.setitem(globals(), "decode_radiograph", pillow_grey)
    monkeypatch.setitem(globals(), "decode_with_notices", lambda data: (pillow_grey(data), (), "png"))
    with pytest.raises(AssertionError):
        test_full_range_16_bit_is_scaled_by_closed_form()
