"""DICOM structure: find the few elements that are needed, in bounded time, without reading the others.

A general reader builds an object for every element and item of a file, which a file of tiny ones turns into minutes
and gigabytes. Here the others are stepped over, and there may not be many of them.
Source: DICOM PS3.5 sections 6.2.2 (UN of undefined length), 7.1 (elements) and 7.5 (sequences and items).
"""

import struct
from collections.abc import Collection, Iterator

from cxr.imaging.limits import ImageError

MAX_PARTS = 10_000  # elements, items and fragments; radiographs have a few hundred
MAX_SEQUENCE_BYTES = 2**18  # of a needed sequence, a lookup table: 65,536 entries are 131 KB
UNDEFINED = 0xFFFFFFFF  # length of what ends at a delimiter
ITEM_GROUP, ITEM = 0xFFFE, 0xE000  # the group's other two elements end items and sequences
PIXEL_DATA = 0x7FE00010
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())


def needed_elements(data: bytes, position: int, tags: Collection[int], max_bytes: int = MAX_SEQUENCE_BYTES) -> bytes:
    """Return the bytes of the data set's elements with these tags, from `position` up to the pixels.

    Each is there once at most (PS3.5 7.1). Readers disagree on which of two counts, so two that differ are refused.

    Args:
        max_bytes: of one element but the pixels.

    Raises: ImageError damaged.
    """
    kept: dict[int, bytes] = {}
    for tag, start, end in _outer_elements(data, position):
        if tag in tags:
            if tag != PIXEL_DATA and end - start > max_bytes:
                raise _damaged("an element in it is too long")
            element = data[start:end]
            if kept.setdefault(tag, element) != element:
                raise _damaged("an element in it is there twice, with different values")
        if tag == PIXEL_DATA:  # nothing that is needed follows the pixels
            break
    return b"".join(kept.values())


def _outer_elements(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield tag, start and end of each element that is not inside another, header included."""
    explicit = data[position + 4 : position + 6] in LONG_VRS | SHORT_VRS  # some files are not what they say
    around: list[bool] = []  # was it explicit outside of each thing of undefined length that is open?
    tag = begin = 0
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            if around:
                raise _damaged("its end is missing")
            return
        group, number = struct.unpack_from("<HH", data, position)
        if group == ITEM_GROUP:
            length = struct.unpack_from("<I", data, position + 4)[0]
            position += 8
            if not around:
                raise _damaged("its parts are out of order")
            if number != ITEM:
                explicit = around.pop()
                if not around:
                    yield tag, begin, position
            elif length == UNDEFINED:
                around.append(explicit)
            else:
                position += length
            continue
        if not around:
            tag, begin = group << 16 | number, position
        unknown = data[position + 4 : position + 6] == b"UN"
        position, length = value_of(data, position, explicit)
        if length == UNDEFINED:
            around.append(explicit)
            explicit = explicit and not unknown
            continue
        position += length
        if position > len(data):
            raise _damaged("its end is missing")
        if not around:
            yield tag, begin, position
    raise _damaged(f"it has more than {MAX_PARTS} parts before its pixels")


def value_of(data: bytes, position: int, explicit: bool) -> tuple[int, int]:
    """Return where the value of a little-endian element begins, and its length; an unknown type counts as short."""
    if not explicit:
        return position + 8, struct.unpack_from("<I", data, position + 4)[0]
    if data[position + 4 : position + 6] not in LONG_VRS:
        return position + 8, struct.unpack_from("<H", data, position + 6)[0]
    if position + 12 > len(data):
        raise _damaged("its end is missing")
    return position + 12, struct.unpack_from("<I", data, position + 8)[0]


def _damaged(fault: str) -> ImageError:
    return ImageError("damaged", f"This DICOM file is damaged: {fault}. Export or copy it again.")
