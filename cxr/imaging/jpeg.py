"""JPEG: walk the markers of the file, then let libjpeg-turbo decode the segments that carry pixels.

Comments, profiles, EXIF and whatever follows the picture never reach the decoder.
JPEG has no checksum, but its codes leave little room: data that is cut or rotten ends too early or too late, and
libjpeg then only warns and fills up with grey. Here each of its warnings is an error. A few changed bytes can still be
valid codes.
Source: ITU-T T.81 (JPEG), Annex B; ITU-T T.87 (JPEG-LS), Annex C.
"""

import re
import struct
from dataclasses import dataclass

import numpy as np
import simplejpeg

from cxr.imaging.limits import ImageError, check_sides

JPEG_SIGNATURE = b"\xff\xd8\xff"
MAX_SCANS = 50  # progressive encoders write about 10; each scan costs a pass over the whole picture
MAX_SEGMENTS = 10_000  # stops files made of tiny segments

BASELINE, EXTENDED, PROGRESSIVE, LOSSLESS, JPEG_LS = 0xC0, 0xC1, 0xC2, 0xC3, 0xF7  # start-of-frame markers
FRAMES = frozenset({*range(0xC0, 0xD0), JPEG_LS}) - {0xC4, 0xC8, 0xCC}  # DHT, JPG and DAC are no frames
START_OF_SCAN, END_OF_IMAGE, START_OF_IMAGE = 0xDA, 0xD9, 0xD8
JFIF, EXIF, MULTI_PICTURE, ADOBE, COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
METADATA = frozenset({*range(0xE0, 0xF0), COMMENT}) - {JFIF, ADOBE}  # these two say how colours are stored

FILL = re.compile(rb"\xff+")
# What ends coded data: a marker that is neither a stuffed byte nor a restart. JPEG-LS stuffs bits, not bytes.
NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
NEXT_MARKER_LS = re.compile(rb"\xff[\x80-\xcf\xd8-\xfe]")


@dataclass(frozen=True)
class JpegFile:
    """What a checked JPEG stream holds: its declared format, the segments that carry pixels, and its EXIF block."""

    width: int
    height: int
    precision: int  # bits per sample
    components: int
    frame: int  # start-of-frame marker
    essential: bytes
    exif: bytes


def decode_jpeg(data: bytes) -> tuple[np.ndarray, bytes]:
    """Decode a JPEG file as it is stored, without turning it.

    Returns: uint8 (h, w) or (h, w, 3) in OpenCV's order BGR; the EXIF block.
    Raises: ImageError.
    """
    jpeg = inspect_jpeg(data)
    if jpeg.frame not in (BASELINE, EXTENDED, PROGRESSIVE) or jpeg.precision != 8:
        message = "This JPEG is of a rare kind (lossless, arithmetic or 12 bits). Save it as PNG or baseline JPEG."
        raise ImageError("jpeg_kind", message)
    if jpeg.components not in (1, 3):
        message = "This JPEG is in printing colours (CMYK); grey or RGB is read. Save it as a grey PNG or JPEG."
        raise ImageError("jpeg_kind", message)
    check_sides(jpeg.width, jpeg.height, jpeg.components)
    pixels = decode_scans(jpeg)
    if pixels is None:
        raise _damaged("its compressed pixels are incomplete or wrong")
    return pixels, jpeg.exif


def decode_scans(jpeg: JpegFile) -> np.ndarray | None:
    """Decode the pixels of a checked JPEG stream of 8 bits, one or three components, whatever its process.

    Returns: uint8 (h, w) or (h, w, 3) in OpenCV's order BGR; None where they are incomplete or wrong.
    """
    colours = "GRAY" if jpeg.components == 1 else "BGR"
    try:
        pixels = simplejpeg.decode_jpeg(jpeg.essential, colours, strict=True)
    except ValueError:  # every error and, as it is strict, every warning of libjpeg-turbo
        return None
    if pixels.shape[:2] != (jpeg.height, jpeg.width):
        return None
    return pixels[..., 0] if jpeg.components == 1 else pixels


def inspect_jpeg(data: bytes) -> JpegFile:
    """Walk the segments of a JPEG or JPEG-LS stream from its first marker to its end marker.

    Raises: ImageError damaged, several_pictures or too_many_scans.
    """
    if data[:2] != JPEG_SIGNATURE[:2]:
        raise _damaged("its start is missing")
    kept, exif, frame = [data[:2]], b"", None
    position = 2
    scans = 0
    for _ in range(MAX_SEGMENTS):
        marker, body, end = _read_segment(data, position)
        if marker == END_OF_IMAGE:
            if frame is None or not scans:
                raise _damaged("it has no pixels")
            return JpegFile(*frame, b"".join([*kept, b"\xff\xd9"]), exif)
        if marker == MULTI_PICTURE and body.startswith(b"MPF\x00"):
            raise ImageError("several_pictures", "This JPEG holds several pictures. Save one of them as a plain JPEG.")
        if marker == EXIF and body.startswith(b"Exif\x00\x00"):
            exif = body[6:]
        if marker in FRAMES:
            if frame is not None or len(body) < 6:
                raise _damaged("its header is wrong")
            precision, height, width, components = struct.unpack_from(">BHHB", body)
            frame = (width, height, precision, components, marker)
        elif marker == START_OF_SCAN:
            scans += 1
            if frame is None or scans > MAX_SCANS:
                raise _scan_fault(frame is None)
            end = _end_of_scan(data, end, frame[-1])
        if marker not in METADATA:
            kept.append(data[position:end])
        position = end
    raise _damaged(f"it has more than {MAX_SEGMENTS} segments")


def _read_segment(data: bytes, position: int) -> tuple[int, bytes, int]:
    """Return marker, body and end of the segment at `position`."""
    fill = FILL.match(data, position)
    if fill is None or fill.end() >= len(data):
        raise _damaged("its end is missing")
    marker, start = data[fill.end()], fill.end() + 1
    if marker == END_OF_IMAGE:
        return marker, b"", start
    if marker in (0x00, 0x01, START_OF_IMAGE) or 0xD0 <= marker <= 0xD7 or start + 2 > len(data):
        raise _damaged("its parts are out of order")
    end = start + struct.unpack_from(">H", data, start)[0]
    if end < start + 2 or end > len(data):
        raise _damaged("its end is missing")
    return marker, data[start + 2 : end], end


def _end_of_scan(data: bytes, position: int, frame: int) -> int:
    """Return where the coded data from `position` on ends."""
    found = (NEXT_MARKER_LS if frame == JPEG_LS else NEXT_MARKER).search(data, position)
    if found is None:
        raise _damaged("its end is missing")
    return found.start()


def _scan_fault(frame_missing: bool) -> ImageError:
    if frame_missing:
        return _damaged("its header is missing")
    message = f"This JPEG stores its pixels in more than {MAX_SCANS} passes. Save it again as a baseline JPEG or PNG."
    return ImageError("too_many_scans", message)


def _damaged(fault: str) -> ImageError:
    return ImageError("damaged", f"This JPEG is damaged: {fault}. Export or copy the picture again.")
