"""DICOM headers: is this a DICOM file, how is it encoded, and what does it say about its pixels?

Values are taken from the raw bytes of the elements, so that odd ones neither raise nor appear in a library's warning.
Source: DICOM PS3.10 section 7.1 (file meta information), PS3.5 section 7.1 (elements), PS3.3 C.7.6.3 (image pixel).
"""

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from cxr.imaging.dicom_walk import LONG_VRS, SHORT_VRS, value_of
from cxr.imaging.limits import ImageError, check_sides

PREAMBLE = bytes(128) + b"DICM"
IMPLICIT_LITTLE, EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
STORAGE_CLASSES = b"1.2.840.10008.5.1.4.1.1."  # what every picture's SOP class starts with
# Presentation states, structured reports, encapsulated documents and waveforms (PS3.4, B.5), as CDs hold them.
PICTURELESS_CLASSES = tuple(f"1.2.840.10008.5.1.4.1.1.{branch}." for branch in (11, 88, 104, 9))
MANUFACTURER = 0x00080070
UID_PREFIX = b"1.2.840.10008."
OWN_MANUFACTURER = "CXR research prototype"  # of every DICOM object that this program writes

MAX_FIRST_ELEMENTS = 64  # elements looked at in group 2, or in group 8 of a file without preamble


@dataclass(frozen=True)
class PixelHeader:
    """What the header says about the stored samples, checked."""

    rows: int
    columns: int
    bits_allocated: int  # 8 or 16
    bits_stored: int
    high_bit: int
    signed: bool
    inverted: bool  # MONOCHROME1: the lowest value is white

    @property
    def lowest(self) -> int:
        return -(2 ** (self.bits_stored - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        return self.lowest + 2**self.bits_stored - 1


def is_dicom(data: bytes) -> bool:
    """Say whether these bytes are a DICOM file, with the usual preamble or without it."""
    return data[128:132] == b"DICM" or missing_start(data) is not None


def missing_start(data: bytes) -> bytes | None:
    """Return what a DICOM file that lost its start needs in front of it; None where this is no such file.

    Accepted are bytes that begin with file meta elements (group 2) which name a standard transfer syntax, and bytes
    that begin with group 8 in ascending order, implicit or explicit little endian, and reach the SOP class of a
    storage object within 64 elements. No text, archive or program passes; such a file is then read like any other.
    """
    if data[:2] == b"\x02\x00":
        syntax = _first_values(data, 0, group=2, explicit=True)[0].get(0x00020010, b"")
        return PREAMBLE if syntax.startswith(UID_PREFIX) else None
    if data[:2] != b"\x08\x00":
        return None
    for explicit, syntax in ((False, IMPLICIT_LITTLE), (True, EXPLICIT_LITTLE)):
        sop_class = _first_values(data, 0, group=8, explicit=explicit)[0].get(0x00080016, b"")
        if sop_class.startswith(STORAGE_CLASSES):
            return start_of_file(syntax)
    return None


def is_directory(start: bytes) -> bool:
    """Say whether these first bytes of a DICOM file are those of a DICOMDIR, a list of files."""
    return _stored_class(start) == DIRECTORY_CLASS


def holds_no_picture(start: bytes) -> bool:
    """Say whether these first bytes of a DICOM file are those of a report, a presentation state or the like."""
    return _stored_class(start).startswith(PICTURELESS_CLASSES)


def is_own_result(start: bytes) -> bool:
    """Say whether these first bytes of a DICOM file are those of an answer that this program wrote.

    By the manufacturer in the data set: archives write group 2 anew.
    """
    position = len(PREAMBLE) if start[128:132] == b"DICM" else 0
    meta, position = _first_values(start, position, group=2, explicit=True)
    explicit = _uid(meta.get(0x00020010, b"")) != IMPLICIT_LITTLE
    values, _ = _first_values(start, position, group=8, explicit=explicit)
    return _uid(values.get(MANUFACTURER, b"")) == OWN_MANUFACTURER


def _stored_class(start: bytes) -> str:
    """Return the SOP class that group 2 names, "" where it names none."""
    position = len(PREAMBLE) if start[128:132] == b"DICM" else 0
    return _uid(_first_values(start, position, group=2, explicit=True)[0].get(0x00020002, b""))


def read_transfer_syntax(data: bytes) -> tuple[str, int]:
    """Read group 2 alone: nothing is inflated, nothing after it is read.

    Returns: the transfer syntax UID, and where the data set begins.
    Raises: ImageError dicom_directory or dicom_compression.
    """
    values, end = _first_values(data, len(PREAMBLE), group=2, explicit=True)
    if _uid(values.get(0x00020002, b"")) == DIRECTORY_CLASS:
        raise ImageError("dicom_directory", "This is a DICOMDIR, a list of files. Upload one of the pictures it lists.")
    syntax = _uid(values.get(0x00020010, b""))
    if not syntax:
        message = "This DICOM file does not say how it is encoded (no transfer syntax). Export the picture again."
        raise ImageError("dicom_compression", message)
    return syntax, end


def start_of_file(syntax: str) -> bytes:
    """Return the preamble and the shortest group 2 that a DICOM file can have."""
    uid = syntax.encode() + b"\x00" * (len(syntax) % 2)
    return PREAMBLE + struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid


def read_pixel_header(dataset: Dataset) -> PixelHeader:
    """Check what the header declares about the pixels, before anything is allocated for them.

    Raises: ImageError.
    """
    if raw_value(dataset, "PixelData") is None:
        message = "This DICOM file holds no picture (a report or another object). Upload the radiograph itself."
        raise ImageError("dicom_no_picture", message)
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or _integer(dataset, "SamplesPerPixel", 1) != 1:
        raise ImageError("dicom_colour", "This DICOM picture is not grey (MONOCHROME1 or 2). Upload the original.")
    if number(dataset, "NumberOfFrames") not in (None, 1.0):
        raise ImageError("several_pictures", "This DICOM file holds several pictures. Upload one picture only.")
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    allocated, stored = _integer(dataset, "BitsAllocated"), _integer(dataset, "BitsStored")
    high_bit = _integer(dataset, "HighBit", stored - 1)
    representation = _integer(dataset, "PixelRepresentation", 0)
    check_sides(columns, rows, allocated // 8)
    if allocated not in (8, 16) or not 1 <= stored <= high_bit + 1 <= allocated or representation not in (0, 1):
        raise header_fault("Bits Allocated, Bits Stored, High Bit and Pixel Representation do not fit together")
    return PixelHeader(rows, columns, allocated, stored, high_bit, representation == 1, photometric == "MONOCHROME1")


def header_fault(fault: str) -> ImageError:
    """Return the error for a header that contradicts itself or its pixels; `fault` names elements, never values."""
    return ImageError("dicom_header", f"The header of this DICOM file is wrong: {fault}. Export the picture again.")


def raw_value(dataset: Dataset, keyword: str) -> Any | None:
    """Return an element's value as it is stored, usually bytes; None where it is missing or empty."""
    tag = tag_for_keyword(keyword)
    if tag not in dataset:
        return None
    # Without keep_deferred an element that has no value is converted by its type, which fails for unknown types.
    value = dataset.get_item(tag, keep_deferred=True).value
    return None if value is None or value == b"" else value


def text(dataset: Dataset, keyword: str) -> str:
    """Return the first value of a text element in capitals, "" where it is missing."""
    return texts(dataset, keyword)[0]


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of a text element in capitals, one empty value where it is missing."""
    value = raw_value(dataset, keyword)
    whole = value.decode("latin-1") if isinstance(value, bytes) else "" if value is None else str(value)
    return [part.strip(" \x00").upper() for part in whole.split("\\")]


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first value of a decimal or integer string; None where it is missing, NaN where it is no number."""
    value = text(dataset, keyword)
    if not value:
        return None
    try:
        return float(value)
    except ValueError:
        return math.nan


def attempt(step: Callable[..., Any], *arguments: Any, **options: Any) -> Any | None:
    """Call a library on hostile bytes; None where it fails, whatever way it fails.

    pydicom and its plugins raise nearly every built-in exception, StopIteration and RecursionError among them, with
    header values in the text. The caller raises its own ImageError outside of this handler, so that the two are not
    chained in a log.
    """
    try:
        return step(*arguments, **options)
    except ImageError:
        raise
    except Exception:  # noqa: BLE001 - see above
        return None


def _integer(dataset: Dataset, keyword: str, default: int | None = None) -> int:
    """Return an unsigned 16-bit element; the default, or an ImageError, where it is missing or malformed."""
    value = raw_value(dataset, keyword)
    if value is None and default is not None:
        return default
    if isinstance(value, bytes) and len(value) == 2:
        return struct.unpack("<H", value)[0]
    if isinstance(value, int):
        return value
    raise header_fault(f"{keyword} is missing or malformed")


def _uid(value: bytes) -> str:
    return value.decode("latin-1").strip(" \x00")


def _first_values(data: bytes, position: int, group: int, explicit: bool) -> tuple[dict[int, bytes], int]:
    """Return the first elements of a file by tag, as far as they belong to `group` and ascend, and where they end."""
    values: dict[int, bytes] = {}
    last = -1
    for tag, start, end in islice(_elements(data, position, explicit), MAX_FIRST_ELEMENTS):
        if tag >> 16 != group or tag <= last:
            break
        values[tag] = data[start : min(end, start + 128)]  # a UID has at most 64 bytes
        last, position = tag, end
    return values, position


def _elements(data: bytes, position: int, explicit: bool) -> Iterator[tuple[int, int, int]]:
    """Yield tag, start and end of the value of each little-endian element, until one does not fit."""
    while position + 12 <= len(data):
        group, element = struct.unpack_from("<HH", data, position)
        if explicit and data[position + 4 : position + 6] not in LONG_VRS | SHORT_VRS:
            return
        start, length = value_of(data, position, explicit)
        if start + length > len(data):
            return
        yield group << 16 | element, start, start + length
        position = start + length
