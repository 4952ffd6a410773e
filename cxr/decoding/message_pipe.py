"""Numbered messages through the pipes between a process and its child, out of reach of what native code prints.

A message is a mark, a number, a length, and that many bytes.
"""

import os
import struct
from typing import BinaryIO

from cxr.system.process import hold_standard_descriptors

HEAD = struct.Struct(">4sQQ")  # mark, number, length in bytes
MARK = b"cxr\x01"


class ChannelError(Exception):
    """What came through the pipe is no answer to the question that was asked."""


def take_channel() -> tuple[BinaryIO, BinaryIO]:
    """Move the parent's pipes to descriptors of their own; standard input and output become the null device.

    To be called before any library is loaded, which may print.

    Returns: the stream of questions and the stream of answers.
    """
    hold_standard_descriptors()
    channel = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    silence(0, 1)
    return channel


def silence(*descriptors: int) -> None:
    """Let what is written to these descriptors go nowhere."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def read_message(stream: BinaryIO, max_bytes: int | None = None) -> tuple[int, bytearray] | None:
    """Read the number and the body of one message; None where the stream ends before it is complete.

    Raises:
        ChannelError: it begins with something else, or is longer than `max_bytes`.
    """
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    mark, number, length = HEAD.unpack(head)
    if mark != MARK or (max_bytes is not None and length > max_bytes):
        raise ChannelError("no message, or one that is too long")
    body = bytearray(length)
    view, filled = memoryview(body), 0
    while filled < length:
        count = stream.readinto(view[filled:])
        if not count:
            return None
        filled += count
    return number, body


def write_message(stream: BinaryIO, number: int, *parts: bytes | memoryview) -> None:
    """Write one message, whose body comes in parts, and flush it."""
    stream.write(HEAD.pack(MARK, number, sum(map(len, parts))))
    for part in parts:
        stream.write(part)
    stream.flush()
