"""DICOM samples -> grey levels: modality LUT, VOI LUT or window, and what to do where the header gives neither.

Samples have at most 16 bits, so each rule is worked out once per possible sample and not once per pixel.
Source: DICOM PS3.3 C.11.1 (modality LUT and rescale), C.11.2.1 (window, VOI LUT function), C.7.5.1.1.2 (padding).
"""

import math
import struct

import cv2
import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from cxr.imaging.dicom_header import PixelHeader, attempt, number, raw_value, text
from cxr.imaging.limits import ImageError, full_scale

QUANTILES = (0.005, 0.995)  # of the pixels: black and white where the file gives no usable window
VISIBLE_SPREAD = 4  # grey levels between QUANTILES; a window that leaves less hides the picture
MIN_SAMPLE_SPREAD = 16  # stored steps between QUANTILES; stretching less than that would show noise only

BAD_WINDOW = "The display window of this file cannot be used; brightness and contrast were set from the picture itself."
NO_WINDOW = "This file gives no display window; brightness and contrast were set from the picture itself."
BAD_RESCALE = "The rescale values of this file cannot be used and were ignored."
BAD_LUT = "A lookup table of this file cannot be used and was ignored."


def to_grey(samples: np.ndarray, dataset: Dataset, header: PixelHeader) -> tuple[np.ndarray, list[str]]:
    """Turn stored samples into grey levels, bone bright.

    The first VOI LUT, else the first window, else: up to 8 bits the full range as it is stored, above 8 bits
    linear between the 0.5 % and the 99.5 % quantile of the picture, as raw detector values have no range of their own.
    MONOCHROME1 is inverted last. Padding is black.

    Returns: uint8 (rows, columns); notices.
    """
    codes = np.arange(header.lowest, header.highest + 1)
    index = samples.astype(np.uint16) + np.uint16(-header.lowest)  # unsigned words wrap around: no wider copy is needed
    counts = cv2.calcHist([index], [0], None, [codes.size], [0, codes.size]).ravel()
    padding = _padding(dataset, header, codes)
    counts[padding] = 0
    values, notices = _modality_values(dataset, header, codes)
    grey, voi_notices = _voi_grey(dataset, header, values)
    if grey is not None and _spread(grey, counts) < VISIBLE_SPREAD:
        grey, voi_notices = None, [BAD_WINDOW]
    if grey is None:
        grey = _grey_without_window(header, values, counts)
        if header.bits_stored > 8 and not voi_notices:
            voi_notices = [NO_WINDOW]
    if header.inverted:
        grey = 1.0 - grey
    grey[padding] = 0.0
    return np.rint(grey * 255).astype(np.uint8)[index], [*notices, *voi_notices]


def _modality_values(dataset: Dataset, header: PixelHeader, codes: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Map stored values to modality values, float64."""
    if raw_value(dataset, "ModalityLUTSequence") is not None:
        found = attempt(_look_up, dataset, "ModalityLUTSequence", codes, header.signed)
        return (codes.astype(float), [BAD_LUT]) if found is None else (found[0].astype(float), [])
    slope, intercept = number(dataset, "RescaleSlope"), number(dataset, "RescaleIntercept")
    if slope is None and intercept is None:
        return codes.astype(float), []
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0 or max(abs(slope), abs(intercept)) > 1e12:
        return codes.astype(float), [BAD_RESCALE]
    return codes * slope + intercept, []


def _voi_grey(dataset: Dataset, header: PixelHeader, values: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """Map modality values to grey 0-1 by the file's VOI LUT or window; None where it has no usable one."""
    notices = []
    if raw_value(dataset, "VOILUTSequence") is not None:
        rounded = np.rint(values).astype(np.int64)
        found = attempt(_look_up, dataset, "VOILUTSequence", rounded, header.signed or rounded.min() < 0)
        if found is not None and found[1] > 0:
            # The bits of the LUT descriptor are often wrong; the entries themselves say how far the table goes, also
            # those that no sample of this picture can reach.
            looked_up, largest = found
            return looked_up / full_scale(largest), []
        notices.append(BAD_LUT)
    centre, width = number(dataset, "WindowCenter"), number(dataset, "WindowWidth")
    if centre is None and width is None:
        return None, notices
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    usable = centre is not None and width is not None and math.isfinite(centre) and math.isfinite(width)
    if not usable or width < (1 if function == "LINEAR" else 1e-9) or max(abs(centre), width) > 1e12:
        return None, [*notices, BAD_WINDOW]
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -60, 60))), notices
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    return np.clip((values - centre) / width + 0.5, 0, 1), notices


def _grey_without_window(header: PixelHeader, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Map modality values to grey 0-1 by the rule in to_grey."""
    darkest, brightest = values.min(), values.max()
    if header.bits_stored > 8:
        steps = _quantiles(np.arange(values.size), counts)
        if steps[1] - steps[0] < MIN_SAMPLE_SPREAD:
            message = "The picture is blank: nearly all of it has one brightness. Choose another picture."
            raise ImageError("blank", message)
        darkest, brightest = _quantiles(values, counts)
    return np.clip((values - darkest) / max(brightest - darkest, 1e-9), 0, 1)


def _look_up(dataset: Dataset, keyword: str, values: np.ndarray, signed: bool) -> tuple[np.ndarray, int]:
    """Return the entries of the first table of a LUT sequence for `values`, and the largest entry that it has.

    Beyond the table's ends the end's entry counts.

    Any malformed table raises one of many exceptions: call through `attempt`.
    """
    item = dataset[tag_for_keyword(keyword)].value[0]
    num_entries, _, _ = struct.unpack("<3H", raw_value(item, "LUTDescriptor"))
    first = struct.unpack("<HhH" if signed else "<3H", raw_value(item, "LUTDescriptor"))[1]
    num_entries = num_entries or 65536
    data = raw_value(item, "LUTData")
    entries = np.frombuffer(data, "u1" if len(data) < 2 * num_entries else "<u2", num_entries)
    return entries[np.clip(values - first, 0, num_entries - 1)], int(entries.max())


def _padding(dataset: Dataset, header: PixelHeader, codes: np.ndarray) -> np.ndarray:
    """Return a mask over the codes: which of them fill the picture up to a rectangle (PS3.3 C.7.5.1.1.2)."""
    limits = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = raw_value(dataset, keyword)
        if isinstance(value, bytes) and len(value) == 2:
            limits.append(struct.unpack("<h" if header.signed else "<H", value)[0])
    if not limits or raw_value(dataset, "PixelPaddingValue") is None:
        return np.zeros(codes.size, bool)
    return (codes >= min(limits)) & (codes <= max(limits))


def _spread(grey: np.ndarray, counts: np.ndarray) -> float:
    """Return the grey levels, 0-255, between the quantiles of a picture."""
    darkest, brightest = _quantiles(grey, counts)
    return 255 * (brightest - darkest)


def _quantiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Return the values below which the QUANTILES of the pixels lie; `counts` says how many pixels have each value."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(counts[order], dtype=float) / max(counts.sum(), 1)
    darkest, brightest = np.searchsorted(share, QUANTILES).clip(max=values.size - 1)
    return float(values[order[darkest]]), float(values[order[brightest]])
