"""The child process that decodes: reads files from its standard input, writes radiographs to its standard output.

    python -m cxr.site.decode_worker        # started by cxr.site.decoding_pool, never by hand

Knows the decoder and nothing else: no Keras, no model, no network, and a bounded address space. What breaks it costs
one request. Each message is a length (8 bytes, big-endian) and that many bytes.
"""

import contextlib
import json
import os
import signal
import struct
import sys
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO

import cv2
import numpy as np

from cxr.imaging.limits import ImageError
from cxr.imaging.radiograph import decode_with_notices

MAX_ADDRESS_SPACE = 1024**3  # bytes; 36 megapixels take 0.4 GB, the libraries 0.3 GB
LENGTH = struct.Struct(">Q")

Decoded = tuple[np.ndarray, tuple[str, ...], str]  # uint8 (h, w), notices, "png", "jpeg" or "dicom"


def main(decode: Callable[[bytes], Decoded] = decode_with_notices) -> int:
    """Answer until the standard input ends, which it does when the parent ends, however that happens."""
    _limit_resources()
    sys.excepthook = _report_without_values
    warnings.simplefilter("ignore")  # libraries repeat values of the file in them
    cv2.setNumThreads(1)
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    write_message(answers, b"ready")
    while (data := read_message(questions)) is not None:
        for part in _answer(decode, data):
            write_message(answers, part)
    return 0


def _answer(decode: Callable[[bytes], Decoded], data: bytes | bytearray) -> list[bytes | memoryview]:
    """Return the parts of the answer: a JSON header, and the pixels where there are any."""
    try:
        radiograph, notices, file_type = decode(bytes(data))
    except ImageError as error:
        return [json.dumps({"code": error.code, "message": str(error)}).encode()]
    except MemoryError:
        return [json.dumps({"code": "decode_memory"}).encode()]
    header = {"code": "", "shape": radiograph.shape, "notices": notices, "type": file_type}
    return [json.dumps(header).encode(), np.ascontiguousarray(radiograph).data.cast("B")]


def read_message(stream: BinaryIO) -> bytearray | None:
    """Read one message; None where the stream ends before it is complete."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    body = bytearray(LENGTH.unpack(head)[0])
    view, filled = memoryview(body), 0
    while filled < len(body):
        count = stream.readinto(view[filled:])
        if not count:
            return None
        filled += count
    return body


def write_message(stream: BinaryIO, body: bytes | memoryview) -> None:
    stream.write(LENGTH.pack(len(body)))
    stream.write(body)
    stream.flush()


def _limit_resources() -> None:
    """Bound the memory, leave no core file with pixels behind, and let Ctrl-C be the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):  # Windows has no resource limits; the deadline holds there too
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MAX_ADDRESS_SPACE, MAX_ADDRESS_SPACE))


def _report_without_values(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say where the decoder broke, not what the exception says: that may quote the file."""
    frames = (f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace))
    print(f"decoder: {kind.__name__} at {' > '.join(frames)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
