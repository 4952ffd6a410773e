"""JPEG files against Pillow: orientation, cuts, rare kinds, scans."""

from io import BytesIO

import broken_pictures
import numpy as np
import pytest
import radiographs as files
from broken_pictures import broken_jpegs, error_code, pillow_grey, sized_jpeg
from PIL import Image, ImageFile, ImageOps

from cxr.imaging.jpeg import JPEG_SIGNATURE
from cxr.imaging.radiograph import ImageError, decode_radiograph

PICTURE = files.radiograph()


@pytest.mark.fault("I01")
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_blocks": 2}])
def test_jpeg_equals_pillow(options):
    data = files.pillow_bytes(PICTURE, **options)
    np.testing.assert_array_equal(decode_radiograph(data), pillow_grey(data))


@pytest.mark.fault("I05")
def test_cmyk_jpeg_is_refused():
    data = files.pillow_bytes(np.repeat(PICTURE[..., None], 3, axis=2), mode="CMYK")
    assert error_code(data) == "jpeg_kind"


@pytest.mark.fault("I07")
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, order):
    exif = files.exif_block(orientation, order)
    as_png = files.png(PICTURE, before=files.chunk(b"eXIf", exif))
    as_jpeg = files.pillow_bytes(PICTURE, exif=b"Exif\x00\x00" + exif)
    for data in (as_png, as_jpeg):
        np.testing.assert_array_equal(decode_radiograph(data), ImageOps.exif_transpose(Image.open(BytesIO(data))))


@pytest.mark.fault("I07")
@pytest.mark.parametrize(
    "exif", [b"", b"II*\x00", b"II*\x00\xff\xff\xff\xff", files.exif_block(9), files.exif_block(6)[:-9]]
)
def test_broken_exif_is_ignored(exif):
    np.testing.assert_array_equal(decode_radiograph(files.png(PICTURE, before=files.chunk(b"eXIf", exif))), PICTURE)


@pytest.mark.fault("I14")
@pytest.mark.parametrize("progressive", [False, True])
def test_cut_jpeg_is_never_half_a_picture(progressive):
    data = files.pillow_bytes(files.radiograph(200, 180), progressive=progressive)
    for offset in [*np.random.default_rng(14).integers(1, len(data), 200), len(data) - 1, len(data) - 2]:
        assert error_code(data[:offset]) in ("damaged", "type")


@pytest.mark.fault("I14")
@pytest.mark.parametrize("fault", broken_jpegs())
def test_broken_jpeg_is_refused(fault):
    assert error_code(broken_jpegs()[fault]) == "damaged"


@pytest.mark.parametrize("declared", [{"frame": 0xC3}, {"frame": 0xC9}, {"frame": 0xC1, "bits": 12}, {"frame": 0xF7}])
def test_rare_kinds_of_jpeg_are_refused(declared):
    assert error_code(sized_jpeg(80, 96, **declared)) == "jpeg_kind"


@pytest.mark.fault("I21")
@pytest.mark.parametrize(
    ("num_scans", "code"), [(1_006, "too_many_scans"), (10_000, "too_many_scans"), (42, "damaged"), (1, None)]
)
def test_scans_are_counted_before_decoding(num_scans, code):
    data = files.jpeg_with_scans(num_scans)  # 42 repeated scans are few enough to be decoded, and no valid JPEG
    if code is None:
        assert decode_radiograph(data).shape == PICTURE.shape
    else:
        assert error_code(data) == code


@pytest.mark.fault("I14")
def test_mutation_a_decoder_that_fills_cut_files_up_is_noticed(monkeypatch):
    def lenient(data: bytes) -> np.ndarray:
        if not data.startswith(JPEG_SIGNATURE):
            raise ImageError("type", "This is not a picture, and the sentence is long enough.")
        return pillow_grey(data)

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(broken_pictures, "decode_radiograph", lenient)
    with pytest.raises((pytest.fail.Exception, OSError)):
        test_cut_jpeg_is_never_half_a_picture(progressive=False)
