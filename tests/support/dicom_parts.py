"""Parts of DICOM files, made byte by byte."""

import struct

import cv2
import numpy as np
import radiographs as files

PICTURE = files.radiograph()


def samples_of(bits: int) -> np.ndarray:
    """Return PICTURE with `bits` bits and values between the 8-bit steps."""
    fine = cv2.GaussianBlur(PICTURE.astype(np.float32), (0, 0), 1)
    fine = (fine - fine.min()) / (fine.max() - fine.min())
    return np.rint(fine * (2**bits - 1)).astype(np.uint16)


def item(value: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


OPEN_SEQUENCE = files.element((8, 0x1140), b"SQ", b"", 0xFFFFFFFF)


OPEN_UNKNOWN = files.element((8, 0x1140), b"UN", b"", 0xFFFFFFFF)


OPEN_PIXELS = files.element((0x7FE0, 0x10), b"OB", b"", 0xFFFFFFFF)


LOOKUP_TABLE = files.element((0x28, 0x3010), b"SQ", item() * 40_000)


MANY_PARTS = {
    "items": OPEN_SEQUENCE + item() * 11_000,
    "items of items": OPEN_SEQUENCE + item(b"", 0xFFFFFFFF) * 11_000,
    "items in an unknown type": OPEN_UNKNOWN + item() * 11_000,
    "elements in an item": OPEN_SEQUENCE + item(b"", 0xFFFFFFFF) + files.element((8, 0x1150), b"LO", b"") * 11_000,
    "elements": files.element((9, 1), b"LO", b"") * 11_000,
    "fragments": OPEN_PIXELS + item() * 11_000,
}
