"""PNG and JPEG files with one thing broken each, and what must become of such files."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import radiographs as files
from PIL import Image

from cxr.imaging.limits import ERROR_STATUS
from cxr.imaging.radiograph import ImageError, decode_radiograph

PICTURE = files.radiograph()


def error_code(data: bytes) -> str:
    """Decode what must be refused, and return the code; each code has its status and its sentence says what to do."""
    with pytest.raises(ImageError) as caught:
        decode_radiograph(data)
    assert caught.value.status == ERROR_STATUS[caught.value.code]
    assert len(str(caught.value)) > 30
    assert "\n" not in str(caught.value)
    return caught.value.code


def assert_whole_or_refused(data: bytes, whole: np.ndarray) -> bool:
    """Decode a damaged file: the identical picture or an ImageError, nothing between. Return whether it was decoded."""
    try:
        decoded = decode_radiograph(data)
    except ImageError:
        return False
    np.testing.assert_array_equal(decoded, whole)
    return True


def pillow_grey(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("L"))


def broken_pngs() -> dict[str, bytes]:
    """Return PNGs with one fault each; all but the first two have right checksums."""
    good = files.png(PICTURE)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    rows = files.png_rows(PICTURE, 8)
    head, end = files.png_header(80, 96), files.chunk(b"IEND")
    packed = zlib.compress(rows)
    idat = [files.chunk(b"IDAT", packed[:500]), files.chunk(b"IDAT", packed[500:])]
    palette = files.chunk(b"PLTE", bytes(768))
    return {
        "flipped bit": bytes(flipped),
        "wrong checksum": good[:-1] + b"\x00",
        "too few pixels": head + files.chunk(b"IDAT", zlib.compress(rows[:3000])) + end,
        "no zlib data": head + files.chunk(b"IDAT", b"not zlib at all") + end,
        "wrong adler": head + files.chunk(b"IDAT", packed[:-1] + b"\x00") + end,
        "wrong filter": head + files.chunk(b"IDAT", zlib.compress(b"\x09" + rows[1:])) + end,
        "pixels apart": head + idat[0] + files.chunk(b"tEXt", b"a\x00b") + idat[1] + end,
        "pixels swapped": head + idat[1] + idat[0] + end,
        "no pixels": head + end,
        "no header": files.PNG_SIGNATURE + idat[0] + idat[1] + end,
        "two headers": head + head[8:] + idat[0] + idat[1] + end,
        "two palettes": files.png_header(80, 96, 8, 3) + palette * 2 + idat[0] + idat[1] + end,
        "no palette": files.png_header(80, 96, 8, 3) + idat[0] + idat[1] + end,
        "depth 3": files.png_header(80, 96, 3) + idat[0] + idat[1] + end,
        "colour type 5": files.png_header(80, 96, 8, 5) + idat[0] + idat[1] + end,
        "unknown critical chunk": head + files.chunk(b"EVIL") + idat[0] + idat[1] + end,
        "length beyond the file": head + b"\x7f\xff\xff\xffIDAT" + packed,
    }


def broken_jpegs() -> dict[str, bytes]:
    """Return JPEGs with one fault each."""
    good = files.pillow_bytes(PICTURE)
    frame, scan = good.index(b"\xff\xc0"), good.index(b"\xff\xda")
    size = struct.unpack_from(">H", good, frame + 2)[0] + 2
    return {
        "no frame": good[:frame] + good[frame + size :],
        "two frames": good[:frame] + good[frame : frame + size] * 2 + good[frame + size :],
        "no scan": good[:scan] + b"\xff\xd9",
        "start twice": good[:2] + good,
        "segment beyond the file": good[:2] + b"\xff\xe0\xff\xff" + good[2:99],
        "segment of length 1": good[:2] + b"\xff\xe0\x00\x01" + good[2:],
        "no marker": good[:frame] + b"abc" + good[frame:],
        "fill without end": good[:2] + b"\xff" * 100_000,
        "no quantisation table": good[:20] + good[frame:],
        "10,001 segments": good[:2] + files.jpeg_segment(0xFE, b"") * 10_001 + good[2:],
    }


def sized_jpeg(width: int, height: int, frame: int = 0xC0, bits: int = 8) -> bytes:
    """Return a JPEG that declares another size, kind or depth than it has."""
    data = files.pillow_bytes(PICTURE)
    at = data.index(b"\xff\xc0")
    return data[: at + 1] + struct.pack(">B2sBHH", frame, data[at + 2 : at + 4], bits, height, width) + data[at + 9 :]
