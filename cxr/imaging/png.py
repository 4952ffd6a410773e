"""PNG: check every chunk of the file, then let OpenCV decode the chunks that carry pixels.

Text, profiles, EXIF and whatever follows the picture never reach the decoder.
Source: Portable Network Graphics (PNG) Specification, third edition, W3C 2025, sections 5 and 11.
"""

import struct
import zlib
from dataclasses import dataclass

import cv2
import numpy as np

from cxr.imaging.limits import ImageError, check_sides

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 20_000  # 100 MB in the usual 8 KiB chunks are 12,200; stops files made of tiny chunks
MAX_EXIF_BYTES = 64 * 1024  # the orientation stands in the first directory

# A text chunk (section 11.3.3.2) right behind the header: this picture was drawn over a radiograph and is none.
DRAWN_TEXT = b"Comment\x00Drawn over a radiograph by a prototype for education; not a radiograph"
SOURCE_TEXT = b"Source\x00"  # begins a second one: of which radiograph
HEADER_END = 33  # bytes: the signature and the IHDR chunk

DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}  # colour type -> bits per sample
GREY, PALETTE = 0, 3


@dataclass(frozen=True)
class PngFile:
    """What a checked PNG file holds: its declared format, the parts that carry pixels, and its EXIF block."""

    width: int
    height: int
    depth: int  # bits per sample
    colour_type: int
    essential: bytes  # signature, IHDR, PLTE, tRNS, IDAT, IEND
    grey_key: int | None  # grey level that stands for transparent
    exif: bytes


def decode_png(data: bytes) -> tuple[np.ndarray, bytes]:
    """Decode a PNG file as it is stored.

    Returns: uint8 or uint16 (h, w), (h, w, 3) or (h, w, 4), colours in OpenCV's order BGR(A); the EXIF block.
    Raises: ImageError.
    """
    png = inspect_png(data)
    pixels = cv2.imdecode(np.frombuffer(png.essential, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[:2] != (png.height, png.width):
        raise _damaged("its compressed pixels are incomplete or wrong")
    if png.grey_key is not None:  # OpenCV ignores this kind of transparency; transparent is black
        steps = 255 // (2**png.depth - 1) if png.depth < 8 else 1
        pixels[pixels == png.grey_key * steps] = 0
    return pixels, png.exif


def inspect_png(data: bytes) -> PngFile:
    """Walk the chunks of a PNG file: lengths, checksums, order, declared size.

    A checksum guards every chunk and the end is marked, so a file that passes is complete. Raises: ImageError.
    """
    view = memoryview(data)
    position = len(PNG_SIGNATURE)
    kind, body, end = _read_chunk(view, position)
    width, height, depth, colour_type = _read_header(kind, body)
    kept, exif, grey_key = [view[:end]], b"", None
    seen = {b"IHDR"}
    for _ in range(MAX_CHUNKS):
        previous, position = kind, end
        kind, body, end = _read_chunk(view, position)
        if kind in (b"acTL", b"fcTL", b"fdAT"):
            raise ImageError("several_pictures", "This PNG is animated. Upload one picture only.")
        if _out_of_order(kind, previous, seen, colour_type):
            raise _damaged("its parts are out of order")
        seen.add(kind)
        if kind == b"eXIf":
            exif = bytes(body[:MAX_EXIF_BYTES])
        elif kind == b"tRNS" and colour_type == GREY and len(body) == 2:
            grey_key = struct.unpack(">H", body)[0]
        elif kind in (b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[position:end])
        elif not kind[0] & 0x20:
            raise _damaged("it has a part that the standard does not know")
        if kind == b"IEND":
            return PngFile(width, height, depth, colour_type, b"".join(kept), grey_key, exif)
    raise _damaged(f"it has more than {MAX_CHUNKS} parts")


def mark_as_drawn(data: bytes, source: str = "") -> bytes:
    """Put a mark into a PNG that says it is no radiograph, so that it is not taken for one later.

    Args:
        source: what tells its radiograph from others, "" where nobody asks; `source_of_drawn` reads it again.
    """
    texts = [DRAWN_TEXT, *([SOURCE_TEXT + source.encode("latin-1")] if source else [])]
    return data[:HEADER_END] + b"".join(map(_text_chunk, texts)) + data[HEADER_END:]


def _text_chunk(text: bytes) -> bytes:
    body = b"tEXt" + text
    return struct.pack(">I", len(text)) + body + struct.pack(">I", zlib.crc32(body))


def source_of_drawn(start: bytes) -> str:
    """Return what `mark_as_drawn` was given as the source of a PNG, of which these are the first bytes; "" without."""
    position = HEADER_END + len(_text_chunk(DRAWN_TEXT))
    length, text = start[position : position + 4], start[position + 8 :]
    if not is_drawn(start) or start[position + 4 : position + 8] != b"tEXt" or not text.startswith(SOURCE_TEXT):
        return ""
    return text[len(SOURCE_TEXT) : int.from_bytes(length)].decode("latin-1")


def is_drawn(start: bytes) -> bool:
    """Say whether a PNG, of which the first few hundred bytes are enough, carries the mark of `mark_as_drawn`."""
    return start.startswith(PNG_SIGNATURE) and start[HEADER_END + 4 :].startswith(b"tEXt" + DRAWN_TEXT)


def _read_chunk(view: memoryview, position: int) -> tuple[bytes, memoryview, int]:
    """Return kind and body of the chunk at `position`, and where it ends; its checksum must be right."""
    if position + 12 > len(view):
        raise _damaged("its end is missing")
    length, kind = struct.unpack_from(">I4s", view, position)
    end = position + 12 + length
    if end > len(view):
        raise _damaged("its end is missing")
    if zlib.crc32(view[position + 4 : end - 4]) != struct.unpack_from(">I", view, end - 4)[0]:
        raise _damaged("a checksum in it is wrong")
    return kind, view[position + 8 : end - 4], end


def _read_header(kind: bytes, body: memoryview) -> tuple[int, int, int, int]:
    """Return width, height, depth and colour type of the IHDR chunk, or refuse what they declare."""
    if kind != b"IHDR" or len(body) != 13:
        raise _damaged("its header is missing")
    width, height, depth, colour_type, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if depth not in DEPTHS.get(colour_type, ()) or compression or filtering or interlace > 1:
        raise _damaged("its header is wrong")
    # OpenCV widens grey with alpha, palettes and transparent colours to four samples of 8 or 16 bits.
    samples = 1 if colour_type == GREY else 4
    check_sides(width, height, samples * (2 if depth == 16 else 1))
    return width, height, depth, colour_type


def _out_of_order(kind: bytes, previous: bytes, seen: set[bytes], colour_type: int) -> bool:
    """Say whether a chunk stands where the standard (section 5.6) forbids it."""
    if kind == b"IDAT":
        palette_missing = colour_type == PALETTE and b"PLTE" not in seen
        return palette_missing or (b"IDAT" in seen and previous != b"IDAT")
    if kind == b"IEND":
        return b"IDAT" not in seen
    return kind == b"IHDR" or (kind in (b"PLTE", b"tRNS") and (kind in seen or b"IDAT" in seen))


def _damaged(fault: str) -> ImageError:
    return ImageError("damaged", f"This PNG is damaged: {fault}. Export or copy the picture again.")
