"""JPEG: walk the markers of a file, then let libjpeg-turbo decode the segments that carry pixels.

Comments, profiles, EXIF and whatever follows the picture never reach the decoder.
JPEG has no checksum, but its codes leave little room: data that is cut or rotten ends too early or too late, and
libjpeg then only warns and fills up with grey. Here each of its warnings is an error. A few changed bytes can still be
valid codes.
Of JPEG-LS and JPEG 2000, which DICOM files hold too, the markers are walked here and others decode.
Source: ITU-T T.81 (JPEG), Annex B; ITU-T T.87 (JPEG-LS), Annex C; ITU-T T.800 (JPEG 2000), Annexes A and B.
"""

import re
import struct
from collections.abc import Iterator
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

# JPEG 2000: markers SIZ, COD, COC, SOT, SOD and EOC.
J2K_CODING, J2K_COMPONENT, J2K_TILE_PART, J2K_DATA, J2K_END = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
J2K_PREDICTABLE = 0x10  # in the code-block style (T.800 A.6.1)
# Coded data never holds these pairs of bytes (T.800 B.10.1 and D.4.1); SOP and EPH, FF91 and FF92, may stand between.
J2K_IMPOSSIBLE = re.compile(rb"\xff[\x90\x93-\xff]")
MAX_J2K_TILES, MAX_J2K_LEVELS = 65_535, 32  # T.800 A.4.2 and A.6.1
# A decoder allocates about 2 kB for each precinct, however short the file; 36 megapixels in the usual ones of 128 x 128
# samples and more have 4,000.
MAX_J2K_PRECINCTS = 100_000
MAX_J2K_PACKETS = 1_000_000  # one for each precinct and quality layer


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


@dataclass(frozen=True)
class Jpeg2000File:
    """What a checked JPEG 2000 codestream declares."""

    width: int
    height: int
    precision: int  # bits per sample
    components: int
    signed: bool
    num_tiles: int
    tile_sides: tuple[int, int]  # width and height in pixels


def read_jpeg_2000_size(data: bytes) -> Jpeg2000File:
    """Read the SIZ marker at the start of a JPEG 2000 codestream (T.800 A.5.1). Raises: ImageError damaged."""
    if len(data) < 47 or not data.startswith(b"\xff\x4f\xff\x51"):
        raise _damaged("its start is missing")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(">8I", data, 8)
    components, depth, step_x, step_y = struct.unpack_from(">HBBB", data, 40)
    width, height = right - left, bottom - top
    if not tile_width or not tile_height or (step_x, step_y) != (1, 1):
        raise _damaged("its header is wrong")
    num_tiles = -((tile_left - right) // tile_width) * -((tile_top - bottom) // tile_height)
    sides = min(tile_width, width), min(tile_height, height)
    return Jpeg2000File(width, height, (depth & 0x7F) + 1, components, bool(depth & 0x80), num_tiles, sides)


def check_jpeg_2000_parts(data: bytes, stream: Jpeg2000File) -> None:
    """Walk the markers of a JPEG 2000 codestream: not too many parts, and tile-parts that fill it.

    Raises: ImageError damaged or too_costly.
    """
    if stream.num_tiles > MAX_J2K_TILES:
        raise _damaged("its header is wrong")
    num_layers = 1
    for marker, _, body in _j2k_segments(data):
        if marker == J2K_CODING and len(body) >= 6:
            num_layers = max(num_layers, struct.unpack_from(">H", body, 2)[0])
            coding = body[:1] + body[5:]
        elif marker == J2K_COMPONENT:
            coding = body[1:]
        else:
            continue
        num_precincts = stream.num_tiles * _num_precincts(coding, *stream.tile_sides)
        if num_precincts > MAX_J2K_PRECINCTS or num_precincts * num_layers > MAX_J2K_PACKETS:
            message = "This JPEG 2000 picture is cut into too many parts. Save it with the usual settings, or as PNG."
            raise ImageError("too_costly", message)


def claiming_predictable_ends(data: bytes) -> bytes:
    """Set the flag of predictable termination (T.800 D.4.2) in a checked codestream; the pixels are the same."""
    claiming = bytearray(data)
    for marker, start, body in _j2k_segments(data):
        style = {J2K_CODING: 8, J2K_COMPONENT: 5}.get(marker, len(body))
        if style < len(body):
            claiming[start + style] |= J2K_PREDICTABLE
    return bytes(claiming)


def _j2k_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield marker, place and body of each segment outside of coded data (T.800 A.4); tile-parts must fill the rest."""
    position, tile_end, num_parts = 2, 0, 0
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == J2K_TILE_PART:
            if tile_end or length != 10 or position + 12 > len(data):
                raise _damaged("its parts are out of order")
            part_length = struct.unpack_from(">I", data, position + 6)[0]
            tile_end = position + part_length if part_length else len(data) - 2
        elif marker == J2K_DATA:
            start = position + 2
            if not start <= tile_end <= len(data) - 2 or J2K_IMPOSSIBLE.search(data, start, tile_end):
                raise _damaged("its compressed pixels are incomplete or wrong")
            position, tile_end, num_parts = tile_end, 0, num_parts + 1
            continue
        else:
            yield marker, position + 4, data[position + 4 : position + 2 + length]
        position += 2 + length
    if not num_parts or tile_end or data[position:] != struct.pack(">H", J2K_END):
        raise _damaged("its end is missing")


def _num_precincts(coding: bytes, tile_width: int, tile_height: int) -> int:
    """Count the precincts of one tile (T.800 B.6).

    Args:
        coding: of a COD or COC marker, its first byte and what stands there from the number of levels on (A.6.1).
    """
    if len(coding) < 6:
        raise _damaged("its header is wrong")
    num_levels = coding[1]
    sizes = coding[6 : 7 + num_levels] if coding[0] & 1 else b"\xff" * (num_levels + 1)  # exponents of height and width
    if num_levels > MAX_J2K_LEVELS or len(sizes) != num_levels + 1:
        raise _damaged("its header is wrong")
    num_precincts = 0
    for resolution, size in enumerate(sizes):
        level = num_levels - resolution
        num_precincts += -(-tile_width >> level + (size & 15)) * -(-tile_height >> level + (size >> 4))
    return num_precincts


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
