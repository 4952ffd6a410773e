"""Decode the files of a folder, each within a bound of time and memory, at the speed of threads.

PNG, JPEG and uncompressed DICOM cost what their header says, which the decoder looks at first: they are decoded in the
caller's thread. What other codecs make of a few bytes no header bounds; such a file goes to a child that can be killed.
"""

import errno
import os
import threading
from types import TracebackType
from typing import Self

from cxr.decoding.pool import Decoder, DecodingError
from cxr.decoding.worker import MAX_ADDRESS_SPACE
from cxr.imaging.dicom import needs_codec
from cxr.imaging.limits import ImageError
from cxr.imaging.radiograph import DecodedPicture, decode_with_notices

DECODE_SECONDS = 60.0  # 36 megapixels of JPEG 2000 take 30 s where other work goes on
WAIT_SECONDS = 3600.0  # for a child: as many files may wait before this one as there are threads
NOT_THE_FILE = ("decode_busy", "decode_down")  # codes of DecodingError


class FileDecoder:
    """Decode files from many threads; a context manager, whose children end with it and start when they are needed."""

    def __init__(self, deadline: float = DECODE_SECONDS) -> None:
        self._deadline = deadline
        self._lock = threading.Lock()
        self._children: Decoder | None = None

    def decode(self, data: bytes) -> DecodedPicture:
        """Decode like cxr.imaging.radiograph.decode_with_notices.

        Raises:
            ImageError: the file cannot be used; too_costly where it takes too much.
            OSError: there is no child to decode it, which says nothing of the file.
        """
        if not needs_codec(data):
            return decode_with_notices(data)
        try:
            return self._pool().decode(data)
        except DecodingError as error:
            if error.code in NOT_THE_FILE:
                reason = f"{str(error)[0].lower()}{str(error)[1:]}; free memory and processes, then start again"
                raise OSError(errno.EAGAIN, reason) from None
            limits = f"at most {self._deadline:g} seconds and {MAX_ADDRESS_SPACE // 2**30} GiB are allowed"
            message = f"{error}; {limits}. Save the picture uncompressed or as PNG."
            raise ImageError("too_costly", message) from None

    def _pool(self) -> Decoder:
        with self._lock:
            if self._children is None:
                self._children = Decoder(_num_children(), deadline=self._deadline, wait=WAIT_SECONDS, start=False)
            return self._children

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._children is not None:
            self._children.close()


def _num_children() -> int:
    """Return one per processor, but no more than the memory holds when all of them take what they may."""
    processors = os.cpu_count() or 1
    if not hasattr(os, "sysconf"):  # Windows
        return processors
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(processors, memory // MAX_ADDRESS_SPACE))
