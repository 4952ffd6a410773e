"""The child process that decodes: reads files from one pipe, writes radiographs to another.

    python -m cxr.decoding.worker        # started by cxr.decoding.pool, never by hand

Knows the decoder and nothing else: no Keras, no model, no network, and a bounded address space. What breaks it costs
one file. The answer has the number of its question.
"""

import contextlib
import functools
import json
import math
import os
import signal
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO

from cxr.decoding.message_pipe import ChannelError, read_message, silence, take_channel, write_message

if __name__ == "__main__":
    CHANNEL = take_channel()  # first: a library may print while it is loaded

import cv2
import numpy as np

from cxr.imaging.limits import MAX_PIXELS, ImageError
from cxr.imaging.radiograph import DecodedPicture, decode_with_notices
from cxr.system.process import ending_signals

READY = 0  # number of the message that says that the libraries are loaded
HEADER_LENGTH = struct.Struct(">I")  # of the JSON at the start of an answer, before the pixels
MAX_ADDRESS_SPACE = 1024**3  # bytes; 36 megapixels take 0.4 GB, the libraries 0.3 GB
MAX_ANSWER_BYTES = MAX_PIXELS + 2**20


def main(channel: tuple[BinaryIO, BinaryIO], decode: Callable[[bytes], DecodedPicture] = decode_with_notices) -> int:
    """Answer until the questions end, which they do when the parent ends, however that happens."""
    questions, answers = channel
    _limit_resources()
    warnings.simplefilter("ignore")  # libraries repeat values of the file in them
    cv2.setNumThreads(1)
    write_message(answers, READY)
    silence(2)  # nobody may read it, and then the child would stand still; what breaks it goes through the channel
    while (question := read_message(questions)) is not None:
        number, data = question
        sys.excepthook = functools.partial(_report_without_values, answers, number)
        write_message(answers, number, *_answer(decode, data))
    return 0


def _answer(decode: Callable[[bytes], DecodedPicture], data: bytearray) -> list[bytes | memoryview]:
    """Return the parts of the answer: a JSON header with its length, and the pixels where there are any."""
    try:
        picture = decode(bytes(data))
    except ImageError as error:
        return _header(code=error.code, message=str(error))
    except MemoryError:
        return _header(code="decode_memory")
    pixels = np.ascontiguousarray(picture.radiograph).data.cast("B")
    header = _header(code="", shape=picture.radiograph.shape, notices=picture.notices, type=picture.file_type)
    return [*header, pixels]


def _header(**fields: object) -> list[bytes]:
    header = json.dumps(fields).encode()
    return [HEADER_LENGTH.pack(len(header)), header]


def unpack_answer(body: bytearray) -> tuple[dict[str, object], np.ndarray | None]:
    """Take an answer apart: its header and, where its code is empty, the radiograph, uint8 (h, w).

    Raises:
        ChannelError: it is none.
    """
    try:
        start = HEADER_LENGTH.size + HEADER_LENGTH.unpack_from(body)[0]
        header = json.loads(body[HEADER_LENGTH.size : start])
        if header["code"]:
            return header, None
        shape, notices, file_type = header["shape"], header["notices"], header["type"]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise ChannelError(f"no answer: {type(error).__name__}") from None
    if not (len(shape) == 2 and math.prod(shape) == len(body) - start and isinstance(file_type, str)):
        raise ChannelError(f"a picture of {shape} in {len(body) - start} bytes")
    header["notices"] = tuple(notices)
    return header, np.frombuffer(body, np.uint8, offset=start).reshape(shape)


def _limit_resources() -> None:
    """Bound the memory, leave no core file with pixels behind, and let the end be the parent's business.

    Terminals and supervisors signal all processes of a group: the parent finishes first what this one decodes for it.
    """
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(ImportError):  # Windows has no resource limits; the deadline holds there too
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))


def _report_without_values(
    answers: BinaryIO, number: int, kind: type[BaseException], _error: BaseException, trace: TracebackType | None
) -> None:
    """Say where the decoder broke, not what the exception says: that may quote the file."""
    frames = (f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace))
    with contextlib.suppress(BrokenPipeError):
        write_message(answers, number, *_header(code="broken", message=f"{kind.__name__} at {' > '.join(frames)}"))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent has ended, while this was still starting
        main(CHANNEL)
    os._exit(0)  # without a last attempt to write into the pipe
