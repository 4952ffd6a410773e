"""DICOM: bytes of a file with one grey picture -> radiograph, by what its header states.

Reads group 2 first, the rest only where the transfer syntax is one that is supported; pydicom gets a small file with
the elements that are needed and sees no other. No value of the header leaves: not in errors or notices, nor in
pydicom's warnings and log lines.
Source: DICOM PS3.3 C.7.3.1 (modality), C.7.6.1 (orientation), C.8.7.10 and C.8.11 (CR and DX images).
"""

import io
import logging
import re
import warnings
from collections.abc import Iterable

import numpy as np
import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from cxr.imaging.dicom_grey import to_grey
from cxr.imaging.dicom_header import (
    attempt,
    is_dicom,
    missing_start,
    raw_value,
    read_pixel_header,
    read_transfer_syntax,
    start_of_file,
    text,
)
from cxr.imaging.dicom_pixels import OVERLAY_BIT_POSITION, check_transfer_syntax, has_bounded_cost, read_samples
from cxr.imaging.dicom_walk import MAX_SEQUENCE_BYTES, needed_elements
from cxr.imaging.limits import ImageError
from cxr.imaging.orientation import Turn, dicom_turn, stated_directions

__all__ = ["decode_dicom", "is_dicom", "needs_codec", "read_header", "stored_turn"]

MAX_HEADER_BYTES = 1024  # of an element that names a patient or a study; a name has 3 groups of 64 characters
RADIOGRAPHY = ("CR", "DX", "DR", "RG")  # DR is not in the standard, but in use
CHEST = ("CHEST", "THORAX")
# Words of View Position and of a view's code. What is in none of the three is a view that nothing is known of.
FRONTAL_WORDS = frozenset(
    ("AP", "PA", "FRONTAL", "ANTERO", "POSTERO", "ANTEROPOSTERIOR", "POSTEROANTERIOR", "POSTERIOR", "ANTERIOR")
)
LATERAL_WORDS = frozenset(("LATERAL", "LAT", "LL", "RL", "LLAT", "RLAT"))
NEUTRAL_WORDS = frozenset(
    (
        *("ERECT", "UPRIGHT", "STANDING", "SITTING", "SEMI", "SEMIERECT", "SUPINE", "RECUMBENT", "BED", "BEDSIDE"),
        *("PORTABLE", "MOBILE", "CHEST", "THORAX", "VIEW", "PROJECTION", "RADIOGRAPHIC", "INSPIRATION", "EXPIRATION"),
        *("OTHER", "UNKNOWN", "NONE", "N", "A", "NA"),
    )
)
# CID 4010 (DX view): postero-anterior, antero-posterior and frontal; SNOMED CT and the older SNOMED RT.
FRONTAL_CODES = {"272479007", "399348003", "399033003", "R-40888", "R-10214", "R-10206", "R-10202"}
LATERAL_VIEW = "The file is marked as a lateral view; frontal views (PA or AP) are expected."
OTHER_VIEW = "The file is marked as a view that is not known to be frontal (PA or AP), such as oblique or decubitus."
PLACING = ("PatientOrientation", "ImageOrientationPatient", "FieldOfViewHorizontalFlip", "FieldOfViewRotation")
OTHER_BODY_PART = "The file is marked as another part of the body than the chest."
NO_FRONTAL_CHEST = (LATERAL_VIEW, OTHER_VIEW, OTHER_BODY_PART)  # what the models of this project are not made for

NEEDED = (
    *("Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "BurnedInAnnotation"),
    *PLACING,
    *("PresentationIntentType", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("VOILUTSequence", "PixelData"),
)


def decode_dicom(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Decode a DICOM file with one grey picture.

    Returns: uint8 (rows, columns), bone bright; notices for the user.
    Raises: ImageError.
    """
    data, syntax, position = _start(data)
    dataset = _read_elements(data, syntax, position, {*map(tag_for_keyword, NEEDED), OVERLAY_BIT_POSITION})
    header = read_pixel_header(dataset)
    samples = read_samples(dataset, header, syntax)
    radiograph, notices = to_grey(samples, dataset, header)
    turn, turn_notices = dicom_turn(dataset)
    return turn.apply(radiograph), [*_describe(dataset), *turn_notices, *notices]


def read_header(data: bytes, keywords: Iterable[str]) -> Dataset:
    """Read these elements of a DICOM file's header, as far as they are there, by the same guards as its pixels.

    Their values are as they are stored and may be anything, but are short: there is no room for what costs time.

    Raises: ImageError.
    """
    data, syntax, position = _start(data)
    tags = {tag_for_keyword(keyword) for keyword in keywords}
    return _read_elements(data, syntax, position, tags, MAX_HEADER_BYTES)


def stored_turn(data: bytes) -> Turn:
    """Return the turn that decoding gives a DICOM file's picture, for what was drawn on it as it is stored.

    Raises: ImageError.
    """
    return dicom_turn(read_header(data, PLACING))[0]


def _start(data: bytes) -> tuple[bytes, str, int]:
    """Return the file with its start, its transfer syntax, and where the data set begins. Raises: ImageError."""
    data = data if data[128:132] == b"DICM" else (missing_start(data) or b"") + data
    syntax, position = read_transfer_syntax(data)
    check_transfer_syntax(syntax)
    return data, syntax, position


def _read_elements(
    data: bytes, syntax: str, position: int, tags: set[int], max_bytes: int = MAX_SEQUENCE_BYTES
) -> Dataset:
    _silence_pydicom()
    small_file = start_of_file(syntax) + needed_elements(data, position, tags, max_bytes)
    dataset = attempt(pydicom.dcmread, io.BytesIO(small_file))
    if dataset is None:
        raise ImageError(
            "damaged", "This DICOM file is damaged: it cannot be read to its end. Export or copy it again."
        )
    return dataset


def needs_codec(data: bytes) -> bool:
    """Say whether this is a DICOM file whose pixels go through a codec that no header bounds."""
    try:
        # Of the whole file, as it is decoded: its start alone may end within group 2.
        return is_dicom(data) and not has_bounded_cost(_start(data)[1])
    except ImageError:  # whoever decodes it says so
        return False


def _describe(dataset: Dataset) -> list[str]:
    """Return notices on what the header says about the examination, without repeating any of it."""
    body_part = text(dataset, "BodyPartExamined")
    view = _view_notice(dataset)
    checks = [
        (text(dataset, "Modality") not in RADIOGRAPHY, "The file is not marked as a radiograph (CR, DX, DR or RG)."),
        (body_part and not body_part.startswith(CHEST), OTHER_BODY_PART),
        (view, view),
        (
            text(dataset, "PresentationIntentType") == "FOR PROCESSING",
            "The file is marked as raw detector data, which looks different from a picture for reading.",
        ),
        (
            text(dataset, "BurnedInAnnotation") == "YES",
            "The file is marked as having text in the picture, which may name the patient.",
        ),
    ]
    return [notice for applies, notice in checks if applies]


def _view_notice(dataset: Dataset) -> str:
    """Return LATERAL_VIEW or OTHER_VIEW where View Position, View Code or Patient Orientation says so, else ""."""
    words = _words(text(dataset, "ViewPosition"))
    items = [*_items(dataset, "ViewCodeSequence")]
    items += [modifier for item in items for modifier in _items(item, "ViewModifierCodeSequence")]
    for item in items:
        code = text(item, "CodeValue")
        if code not in FRONTAL_CODES:
            words |= _words(text(item, "CodeMeaning")) or {code}
    # Rows or columns that run from front to back, or from back to front, are those of a lateral view.
    letters = {letter for directions in stated_directions(dataset)[0] for letter in directions}
    if words & LATERAL_WORDS or letters & {"A", "P"}:
        return LATERAL_VIEW
    return OTHER_VIEW if words - FRONTAL_WORDS - NEUTRAL_WORDS - {""} else ""


def _words(value: str) -> set[str]:
    return set(re.findall("[A-Z]+", value))


def _items(dataset: Dataset, keyword: str) -> Iterable[Dataset]:
    """Return the items of a sequence; none where there is no usable one."""
    if raw_value(dataset, keyword) is None:
        return ()
    items = attempt(lambda: list(dataset[tag_for_keyword(keyword)].value)) or ()
    return [item for item in items if isinstance(item, Dataset)]


def _silence_pydicom() -> None:
    """Stop pydicom from repeating header values, names of patients among them, in warnings and log lines.

    The filter stays: warnings.catch_warnings is not safe in threads.
    """
    logging.getLogger("pydicom").disabled = True
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    first = warnings.filters[0] if warnings.filters else None
    if first is None or first[0] != "ignore" or getattr(first[3], "pattern", None) != r"pydicom\.":
        warnings.filterwarnings("ignore", module=r"pydicom\.")
