"""The one decoder: bytes of a PNG, JPEG or DICOM file -> radiograph -> model input.

Training, evaluation, command line and microsite all come through here, so that they see the same pixels.
The content decides what a file is, never its name. Every check that a header allows is made before decoding.
"""

import stat
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cxr.imaging.dicom import decode_dicom, is_dicom
from cxr.imaging.jpeg import JPEG_SIGNATURE, decode_jpeg
from cxr.imaging.limits import MAX_FILE_BYTES, ImageError, full_scale
from cxr.imaging.orientation import exif_turn
from cxr.imaging.png import PNG_SIGNATURE, decode_png, is_drawn

__all__ = [
    "DecodedPicture",
    "ImageError",
    "decode_radiograph",
    "decode_with_notices",
    "read_file",
    "read_radiograph",
    "read_with_notices",
    "to_model_input",
]

BLANK_SPREAD = 4  # grey levels between the 0.5 % and the 99.5 % quantile; a picture with less shows nothing
FEW_LEVELS = 32  # grey levels; scanners and detectors give 256 and more
COLOUR_SPREAD = 24  # grey levels between a pixel's channels; JPEG alone makes differences of a few
COLOUR_SHARE = 0.01  # share of pixels beyond COLOUR_SPREAD that is no longer a coloured mark in a corner
DRAWN = "This picture was drawn by this program over a radiograph; it is none itself."


class DecodedPicture(NamedTuple):
    """A radiograph, and what whoever shows its answer has to say beside it.

    Attributes:
        radiograph: uint8 (h, w), bone bright.
        notices: sentences for the user, none of which repeats anything of the file.
        file_type: "png", "jpeg" or "dicom".
    """

    radiograph: np.ndarray
    notices: tuple[str, ...]
    file_type: str


def decode_radiograph(data: bytes) -> np.ndarray:
    """Decode the bytes of a PNG, JPEG or DICOM file.

    Returns: uint8 (h, w), bone bright.
    Raises: ImageError.
    """
    return decode_with_notices(data).radiograph


def decode_with_notices(data: bytes) -> DecodedPicture:
    """Decode like decode_radiograph, and say what is unusual about the picture. Raises: ImageError."""
    file_type = detect_file_type(data)
    if file_type == "dicom":
        radiograph, notices = decode_dicom(data)
    else:
        pixels, exif = decode_png(data) if file_type == "png" else decode_jpeg(data)
        radiograph, notices = _to_radiograph(pixels)
        radiograph = exif_turn(exif).apply(radiograph)
    if is_drawn(data):
        notices = [DRAWN, *notices]
    return DecodedPicture(radiograph, (*notices, *_check_levels(radiograph)), file_type)


def read_radiograph(path: str | Path) -> np.ndarray:
    """Decode a file; the error does not name it, the caller knows it.

    Returns: uint8 (h, w), bone bright.
    Raises: OSError where the file cannot be read, ImageError where it cannot be used.
    """
    return decode_radiograph(read_file(path))


def read_with_notices(path: str | Path) -> DecodedPicture:
    """Decode a file like read_radiograph, and say what is unusual about the picture."""
    return decode_with_notices(read_file(path))


def read_file(path: str | Path) -> bytes:
    """Read a file that may hold a picture. Raises: OSError, ImageError type or too_large."""
    path = Path(path)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block or never end
        raise ImageError("type", "This is not a regular file. Name a PNG, JPEG or DICOM file.")
    if status.st_size > MAX_FILE_BYTES:
        limit = f"{MAX_FILE_BYTES // 1024**2} MiB"
        raise ImageError(
            "too_large", f"The file has {status.st_size} bytes; at most {limit} are read. Save it smaller."
        )
    return path.read_bytes()


def to_model_input(radiograph: np.ndarray, size: int) -> np.ndarray:
    """Resize the whole radiograph to the network's input, without cropping, so that a heatmap maps back.

    Sides that shrink are averaged (INTER_AREA), sides that grow are interpolated.
    Returns: uint8 (size, size, 1).
    """
    if radiograph.ndim != 2 or radiograph.dtype != np.uint8:
        raise ValueError(f"Expected a radiograph, uint8 (h, w). Received: {radiograph.dtype} {radiograph.shape}.")
    height, width = radiograph.shape
    resized = cv2.resize(radiograph, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    resized = cv2.resize(resized, (size, size), interpolation=cv2.INTER_LINEAR)
    return resized[..., np.newaxis]


def detect_file_type(data: bytes) -> str:
    """Return "png", "jpeg" or "dicom" by the first bytes. Raises: ImageError empty or type."""
    if not data:
        raise ImageError("empty", "The file is empty. Choose a PNG, JPEG or DICOM file.")
    if data.startswith(PNG_SIGNATURE):
        return "png"
    if data.startswith(JPEG_SIGNATURE):
        return "jpeg"
    if is_dicom(data):
        return "dicom"
    raise ImageError("type", "This is not a PNG, JPEG or DICOM file. Save the radiograph as one of these.")


def _to_radiograph(pixels: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Turn stored samples, uint8 or uint16, grey or BGR(A), into uint8 (h, w).

    Transparent is black. 16-bit samples are scaled, never clipped or cut: white is `full_scale` of the largest.
    """
    notices = []
    alpha = None
    if pixels.ndim == 3:
        if _has_colours(pixels):
            notices.append("This picture has colours; a radiograph has none.")
        alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY if alpha is None else cv2.COLOR_BGRA2GRAY)
    else:
        grey = pixels
    if alpha is not None:
        grey = cv2.multiply(grey, alpha, scale=1 / np.iinfo(alpha.dtype).max)
    if grey.dtype == np.uint16:
        white = full_scale(int(grey.max()))
        if white < 65535:
            bits = white.bit_length()
            notices.append(
                f"The 16-bit picture uses {bits} bits only; the full scale of {bits} bits was taken as white."
            )
        table = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
        grey = table[grey]
    return grey, notices


def _has_colours(pixels: np.ndarray) -> bool:
    """Say whether more than a small share of the pixels of a BGR(A) picture is coloured."""
    blue, green, red = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    spread = cv2.subtract(cv2.max(cv2.max(blue, green), red), cv2.min(cv2.min(blue, green), red))
    limit = COLOUR_SPREAD * (np.iinfo(pixels.dtype).max // 255)
    return np.count_nonzero(spread > limit) > COLOUR_SHARE * spread.size


def _check_levels(radiograph: np.ndarray) -> list[str]:
    """Refuse a blank picture; return a notice where it has few grey levels."""
    counts = cv2.calcHist([radiograph], [0], None, [256], [0, 256]).ravel()
    share = np.cumsum(counts, dtype=float) / radiograph.size
    darkest, brightest = np.searchsorted(share, (0.005, 0.995))
    if brightest - darkest < BLANK_SPREAD:
        raise ImageError("blank", "The picture is blank: nearly all of it has one brightness. Choose another picture.")
    levels = np.count_nonzero(counts)
    if levels > FEW_LEVELS:
        return []
    return [f"This picture has only {levels} grey levels; a radiograph has 256 or more, and detail is lost."]
