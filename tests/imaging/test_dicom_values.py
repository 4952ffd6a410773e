"""The decoder for DICOM. Test names carry the ids of the table of image faults."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import radiographs as files
from broken_pictures import error_code
from dicom_parts import samples_of
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, apply_windowing
from pydicom.sequence import Sequence

from cxr.imaging.radiograph import decode_radiograph, decode_with_notices

PICTURE = files.radiograph()


# --- real files ------------------------------------------------------------------------------------------------------

needs_real_data = pytest.mark.skipif("CXR_REAL_DATA" not in os.environ, reason="CXR_REAL_DATA names no folder")


def real_folder() -> Path:
    return Path(os.environ["CXR_REAL_DATA"])


NO_WINDOW = "This file gives no display window; brightness and contrast were set from the picture itself."


BAD_WINDOW = "The display window of this file cannot be used; brightness and contrast were set from the picture itself."


BAD_RESCALE = "The rescale values of this file cannot be used and were ignored."


BAD_LUT = "A lookup table of this file cannot be used and was ignored."


def to_8_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    return samples * (255 / (2**bits - 1))


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("I27")
@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.IMPLICIT])
def test_8_bit_samples_are_taken_as_they_are(syntax):
    radiograph, notices, file_type = decode_with_notices(files.dicom(PICTURE, syntax=syntax))
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert (radiograph.dtype, notices, file_type) == (np.uint8, (), "dicom")


@pytest.mark.fault("I27")
@pytest.mark.parametrize("bits", [10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_samples_with_a_window_over_their_range_equal_the_png(bits, signed):
    samples = samples_of(bits)
    offset = 2 ** (bits - 1) if signed else 0
    window = {"WindowCenter": 2 ** (bits - 1) - offset, "WindowWidth": 2**bits, "VOILUTFunction": "LINEAR"}
    data = files.dicom(samples.astype(int) - offset, bits, signed, **window)
    radiograph, notices, _ = decode_with_notices(data)
    assert np.abs(radiograph - to_8_bits(samples, bits)).max() <= 0.51
    assert notices == ()
    if bits != 15:
        assert np.abs(radiograph - decode_radiograph(files.png(samples, 16)).astype(int)).max() <= 1


@pytest.mark.fault("I27")
@pytest.mark.parametrize("signed", [False, True])
def test_without_window_the_quantiles_are_black_and_white(signed):
    samples = 3000 + samples_of(11).astype(int) - (4000 if signed else 0)
    radiograph, notices, _ = decode_with_notices(files.dicom(samples, 14, signed))
    low, high = np.quantile(samples, (0.005, 0.995), method="inverted_cdf")
    expected = np.clip((samples - low) / (high - low), 0, 1) * 255
    assert np.abs(radiograph - expected).max() <= 0.51
    assert notices == (NO_WINDOW,)


@pytest.mark.fault("I28")
@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 100, "WindowWidth": 150}])
def test_monochrome1_is_the_inverse_of_monochrome2(bits, window):
    samples = samples_of(bits)
    upright = decode_radiograph(files.dicom(samples, bits, **window))
    inverted = decode_radiograph(files.dicom(samples, bits, PhotometricInterpretation="MONOCHROME1", **window))
    assert np.abs(upright.astype(int) + inverted - 255).max() <= 1
    negative = decode_radiograph(files.dicom(2**bits - 1 - samples, bits, PhotometricInterpretation="MONOCHROME1"))
    counterpart = decode_radiograph(files.dicom(samples, bits))
    assert np.abs(negative.astype(int) - counterpart).max() <= (0 if bits == 8 else 1)


WINDOWS = [(2000, 1500, "LINEAR"), (2000.5, 1500.25, "LINEAR_EXACT"), (1800, 900, "SIGMOID"), (2048, 1, "LINEAR")]


@pytest.mark.fault("I29")
@pytest.mark.parametrize(("centre", "width", "function"), WINDOWS)
def test_window_equals_pydicom_and_the_closed_form(centre, width, function):
    samples = samples_of(12)
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


@pytest.mark.fault("I29")
def test_the_first_of_several_windows_is_taken():
    one = decode_radiograph(files.dicom(samples_of(12), 12, WindowCenter=2000, WindowWidth=1500))
    two = decode_radiograph(files.dicom(samples_of(12), 12, WindowCenter=[2000, 50], WindowWidth=[1500, 10]))
    np.testing.assert_array_equal(one, two)


@pytest.mark.fault("I29")
@pytest.mark.parametrize(("slope", "intercept"), [(2.5, -1000), (-1, 4095), (0.001, 0)])
def test_rescale_comes_before_the_window(slope, intercept):
    samples = samples_of(12)
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


@pytest.mark.fault("I29")
def test_luts_equal_pydicom():
    samples = samples_of(12)
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


@pytest.mark.fault("I29")
@pytest.mark.fault("I97")
@pytest.mark.parametrize("num_entries", [4096, 8192, 16384, 32768])
def test_voi_lut_that_goes_further_than_the_samples_keeps_its_scale(num_entries):
    """White is the table's: the largest entry that these samples reach would make the picture brighter."""
    samples = samples_of(12)
    curve = np.round(np.linspace(0, 65535, num_entries)).astype(np.uint16)
    dataset = files.dicom_dataset(samples, 12, VOILUTSequence=Sequence([lut_item(curve, 0)]))
    radiograph, notices, _ = decode_with_notices(files.dicom_bytes(dataset))
    assert np.abs(radiograph - apply_voi_lut(samples, dataset) / 257).max() <= 0.51
    assert BAD_LUT not in notices


def test_voi_lut_with_a_wrong_depth_or_a_negative_start():
    samples = samples_of(12)
    lying = {"VOILUTSequence": Sequence([lut_item(np.arange(4096), 0, bits=16)])}  # 12-bit entries said to be 16
    assert np.abs(decode_radiograph(files.dicom(samples, 12, **lying)) - to_8_bits(samples, 12)).max() <= 0.51
    shifted = {"VOILUTSequence": Sequence([lut_item(np.arange(4096), -2048, bits=12, signed=True)])}
    data = files.dicom(samples.astype(int) - 2048, 12, signed=True, **shifted)
    assert np.abs(decode_radiograph(data) - to_8_bits(samples, 12)).max() <= 0.51


BAD_WINDOWS = [("abc", "100"), ("100", "abc"), ("2000", "0"), ("2000", "-5"), ("nan", "100"), ("inf", "100")]


@pytest.mark.fault("I29")
@pytest.mark.parametrize(("centre", "width"), [*BAD_WINDOWS, ("1e300", "100"), ("-9000", "10"), ("2000", "")])
def test_bad_windows_are_ignored_with_a_notice(centre, width, capfd):
    samples = samples_of(12)
    data = with_text(files.dicom(samples, 12, WindowCenter="88888888", WindowWidth="99999999"), centre, width)
    radiograph, notices, _ = decode_with_notices(data)
    np.testing.assert_array_equal(radiograph, decode_radiograph(files.dicom(samples, 12)))
    assert notices == (BAD_WINDOW,)
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault("I29")
@pytest.mark.parametrize(("slope", "intercept"), [("abc", "0"), ("0", "0"), ("1", "nan"), ("1e200", "0")])
def test_bad_rescale_is_ignored_with_a_notice(slope, intercept):
    data = with_text(files.dicom(PICTURE, RescaleSlope="88888888", RescaleIntercept="99999999"), slope, intercept)
    radiograph, notices, _ = decode_with_notices(data)
    np.testing.assert_array_equal(radiograph, PICTURE)
    assert notices == (BAD_RESCALE,)


def with_text(data: bytes, first: str, second: str) -> bytes:
    """Write any text over the two placeholders of 8 characters, past pydicom's checks."""
    return data.replace(b"88888888", first.ljust(8).encode()).replace(b"99999999", second.ljust(8).encode())


@pytest.mark.fault("I29")
def test_bad_luts_are_ignored_with_a_notice():
    short = lut_item(np.arange(100), 0)
    short.LUTData = bytes(20)
    for keyword, item in (("VOILUTSequence", short), ("VOILUTSequence", Dataset()), ("ModalityLUTSequence", short)):
        radiograph, notices, _ = decode_with_notices(files.dicom(PICTURE, **{keyword: Sequence([item])}))
        np.testing.assert_array_equal(radiograph, PICTURE)
        assert notices == (BAD_LUT,)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(photometric):
    samples = samples_of(12)
    padded = np.pad(samples, 16, constant_values=9999)
    kind = {"PhotometricInterpretation": photometric}
    dataset = files.dicom_dataset(padded, 14, **kind)
    dataset.add_new(0x00280120, "US", 9999)
    radiograph = decode_radiograph(files.dicom_bytes(dataset))
    np.testing.assert_array_equal(radiograph[16:-16, 16:-16], decode_radiograph(files.dicom(samples, 14, **kind)))
    assert radiograph[:16].max() == 0


@pytest.mark.fault("I36")
def test_unused_bits_hold_an_overlay_or_are_an_error():
    samples = samples_of(12) | np.uint16(0x4000)
    dataset = files.dicom_dataset(samples, 16, WindowCenter=2048, WindowWidth=4096)
    dataset.BitsStored, dataset.HighBit = 12, 11
    assert error_code(files.dicom_bytes(dataset)) == "dicom_header"
    dataset.add_new(0x60000102, "US", 14)
    assert np.abs(decode_radiograph(files.dicom_bytes(dataset)) - to_8_bits(samples_of(12), 12)).max() <= 0.51


@pytest.mark.fault("I36")
def test_high_bit_above_bits_stored_is_shifted():
    dataset = files.dicom_dataset(samples_of(12) << 4, 16, WindowCenter=2048, WindowWidth=4096)
    dataset.BitsStored = 12
    assert np.abs(decode_radiograph(files.dicom_bytes(dataset)) - to_8_bits(samples_of(12), 12)).max() <= 0.51


@pytest.mark.fault("I23")
def test_blank_dicoms_are_refused():
    for bits, samples in ((8, np.full((96, 80), 9)), (12, np.full((96, 80), 900)), (16, 900 + samples_of(3))):
        assert error_code(files.dicom(samples, bits)) == "blank"


@pytest.mark.fault("I03")
def test_few_bits_give_a_notice():
    samples = PICTURE >> 4
    radiograph, notices, _ = decode_with_notices(files.dicom(samples, 4))
    np.testing.assert_array_equal(radiograph, samples * 17)
    assert notices == ("This picture has only 16 grey levels; a radiograph has 256 or more, and detail is lost.",)


REAL_NOTICES = {
    "udacity_test4.dcm": ("The file is marked as another part of the body than the chest.",),
    "udacity_test5.dcm": ("The file is not marked as a radiograph (CR, DX, DR or RG).",),
}


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
        counterpart = decode_radiograph(path.read_bytes())
        resized = cv2.resize(radiograph, counterpart.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(resized - counterpart.astype(int)).max() <= 1, path.name


@pytest.mark.fault("I28")
@needs_real_data
def test_real_monochrome1_is_the_inverse_of_its_counterpart():
    folder = real_folder() / "dicom"
    upright = decode_radiograph((folder / "txrv_rsna_jpegbaseline.dcm").read_bytes())
    inverted = decode_radiograph((folder / "txrv_fake_mono1.dcm").read_bytes())
    np.testing.assert_array_equal(inverted, 255 - upright)
