"""Decode files in child processes that can be killed.

A crash, an endless loop or a memory bomb in one of the libraries that read pictures costs one file, not the site or the
training. The children are fresh interpreters, never forks of a process with threads and a model in it. A child whose
answers could be those of another request is killed: no visitor ever gets what belongs to another.
"""

import contextlib
import logging
import os
import queue
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from cxr.decoding.message_pipe import ChannelError, read_message, write_message
from cxr.decoding.worker import MAX_ANSWER_BYTES, READY, unpack_answer
from cxr.imaging.limits import ERROR_STATUS, ImageError
from cxr.imaging.radiograph import DecodedPicture
from cxr.system.process import hold_standard_descriptors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "cxr.decoding.worker")
NUM_CHILDREN = 2
DECODE_SECONDS = 5.0
START_SECONDS = 60.0  # importing OpenCV and pydicom on a busy machine
READY_SECONDS = 4.0  # that a question for readiness waits for children which have just been started
WAIT_SECONDS = 10.0  # for a child that is free
PIPE_BYTES = 2**20
# All that a child gets of the environment: no secret of the parent's.
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "LANG", "LC_ALL", "VIRTUAL_ENV")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

logger = logging.getLogger(__name__)
T = TypeVar("T")

FAILURES = {
    "decode_time": "Reading it took too long",
    "decode_memory": "Reading it needs too much memory",
    "decode_crash": "It broke the program that reads it",
    "decode_busy": "No program to read it is free",
    "decode_down": "The program that reads it does not start",
}


class DecodingError(Exception):
    """A file that could not be decoded, for what it does to the decoder or because there is none for it.

    Attributes: code, a key of FAILURES.
    """

    def __init__(self, code: str) -> None:
        super().__init__(FAILURES[code])
        self.code = code


class Decoder:
    """Decode files, each within `deadline` seconds, in at most `num_children` processes; safe from many threads.

    The children start at once, or with `start=False` as they are needed: then a server may still fork this process.
    """

    def __init__(
        self,
        num_children: int = NUM_CHILDREN,
        *,
        command: Sequence[str] = COMMAND,
        deadline: float = DECODE_SECONDS,
        wait: float = WAIT_SECONDS,
        start: bool = True,
    ) -> None:
        hold_standard_descriptors()  # a pipe to a child must not get the number that native code prints to
        self._command, self._deadline, self._wait, self._num_children = list(command), deadline, wait, num_children
        self._make_places()
        if start:
            for place in self._places:
                place.renew()
        _decoders.add(self)

    def _make_places(self) -> None:
        self._places = [_Place(self._command) for _ in range(self._num_children)]
        self._free: queue.LifoQueue[_Place] = queue.LifoQueue()
        for place in self._places:
            self._free.put(place)

    def decode(self, data: bytes) -> DecodedPicture:
        """Decode like cxr.imaging.radiograph.decode_with_notices.

        Raises:
            ImageError: the file cannot be used.
            DecodingError: decode_time, decode_memory, decode_crash; for no fault of the file decode_busy where no child
                became free or could be started, and decode_down where one ended before it took files.
        """
        try:
            place = self._free.get(timeout=self._wait)
        except queue.Empty:
            raise DecodingError("decode_busy") from None
        try:
            place.renew()  # the child may have been killed from outside while it waited
            if place.child is None:
                raise DecodingError("decode_busy")
            return place.child.decode(data, self._deadline)
        finally:
            try:
                place.renew()  # a new child starts in the background; nobody waits for it yet
            finally:
                self._free.put(place)

    def ready(self) -> bool:
        """Say whether a child can take files; those that have ended are started again."""
        taken = []
        with contextlib.suppress(queue.Empty):
            while True:
                taken.append(self._free.get_nowait())
        try:
            for place in taken:
                place.renew()
                if place.child is not None:
                    place.child.look_whether_ready(READY_SECONDS / len(taken))
        finally:
            for place in taken:
                self._free.put(place)
        return any(place.child is not None and place.child.ready for place in self._places)

    def close(self) -> None:
        """End the children that are idle; a busy one ends with this process."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._free.get_nowait().close()


_decoders: weakref.WeakSet[Decoder] = weakref.WeakSet()


def _leave_children_to_parent() -> None:
    """Give a forked process children of its own: two that read from one pipe would get each other's pictures."""
    for decoder in _decoders:
        decoder._make_places()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_children_to_parent)


class _Place:
    """The place of one child, which outlives it; used by one thread at a time."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self.child: _Child | None = None

    def renew(self) -> None:
        """Start a child where none lives. A failure is logged, and `child` is None until the next call succeeds."""
        if self.child is not None and self.child.alive:
            return
        self.close()
        try:
            self.child = _Child(self._command)
        except OSError as error:
            logger.error("No decoder can be started: %s. The next request tries again.", error.strerror)

    def close(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            child.close()


class _Child:
    """One child process; used by one thread at a time.

    Attributes:
        ready: whether its libraries are loaded.
    """

    def __init__(self, command: list[str]) -> None:
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | ONE_THREAD
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment
        )
        _widen(self._process.stdin, self._process.stdout)
        self.ready = self._doomed = False
        self._number = READY

    @property
    def alive(self) -> bool:
        """Whether it runs, and owes no answer: one that would be taken for that of the next request."""
        return not self._doomed and self._process.poll() is None

    def decode(self, data: bytes, deadline: float) -> DecodedPicture:
        """Decode one file. Raises: ImageError, DecodingError."""
        if not self.ready:
            self._start()
        header, radiograph = self._within(deadline, lambda: self._ask(data))
        if header["code"] in ERROR_STATUS:
            raise ImageError(header["code"], header["message"])
        if header["code"]:
            raise DecodingError(header["code"])
        return DecodedPicture(radiograph, header["notices"], header["type"])

    def look_whether_ready(self, seconds: float) -> None:
        """Take note of a start that comes to its end within so many seconds."""
        if not self.ready and _readable(self._process.stdout, seconds):
            with contextlib.suppress(DecodingError):
                self._start()

    def _start(self) -> None:
        """Wait until it takes files. Raises: DecodingError decode_down; no file has reached it that may be at fault."""
        try:
            self._within(START_SECONDS, lambda: self._read(READY))
        except DecodingError as error:
            raise DecodingError("decode_busy" if error.code == "decode_busy" else "decode_down") from None
        self.ready = True

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):  # what it did not read any more
            self._process.stdin.close()
        self._process.stdout.close()

    def _ask(self, data: bytes) -> tuple[dict[str, object], np.ndarray | None]:
        self._number += 1
        write_message(self._process.stdin, self._number, data)
        header, radiograph = unpack_answer(self._read(self._number))
        if header["code"] == "broken":
            logger.warning("decoder: %s", header["message"])
            raise EOFError
        return header, radiograph

    def _read(self, number: int) -> bytearray:
        """Read the message of that number. Raises: EOFError, ChannelError."""
        message = read_message(self._process.stdout, MAX_ANSWER_BYTES)
        if message is None:
            raise EOFError
        if message[0] != number:
            raise ChannelError(f"the answer to request {message[0]} instead of {number}")
        return message[1]

    def _within(self, seconds: float, act: Callable[[], T]) -> T:
        """Act, and kill the child where that takes longer: its pipes then end, and the action with them."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:  # the system has no thread left
            raise DecodingError("decode_busy") from None
        self._doomed = True  # until the whole answer is here, whatever happens in between
        try:
            result = act()
        except (OSError, EOFError, ChannelError) as error:
            self._process.kill()
            code = "decode_time" if expired.is_set() else "decode_crash"
            reason = f" ({error})" if isinstance(error, ChannelError) else ""
            status = self._process.wait()
            logger.warning("%s: exit status %d%s; a fresh decoder is started", code, status, reason)
            raise DecodingError(code) from None
        finally:
            timer.cancel()
            timer.join()  # it may have run out just now, and kill the child a moment later: under the next request
        self._doomed = expired.is_set()
        return result


def _readable(pipe: IO[bytes], seconds: float) -> bool:
    """Say whether something comes within so many seconds through a pipe that nothing was read from yet."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(1000 * seconds))


def _widen(*pipes: IO[bytes]) -> None:
    """Let a pipe hold a megabyte (Linux), so that a picture crosses it in few steps."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        for pipe in pipes:
            with contextlib.suppress(OSError):  # above what the system allows its users
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
