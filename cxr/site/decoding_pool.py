"""Decode uploads in child processes that can be killed.

A crash, an endless loop or a memory bomb in one of the libraries that read pictures costs one request, not the site.
The children are fresh interpreters, never forks of a process with threads and a model in it.
"""

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from cxr.imaging.limits import ERROR_STATUS, ImageError
from cxr.site.decode_worker import Decoded, read_message, write_message
from cxr.site.errors import SiteError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "cxr.site.decode_worker")
NUM_CHILDREN = 2
DECODE_SECONDS = 5.0
START_SECONDS = 60.0  # importing OpenCV and pydicom on a busy machine
WAIT_SECONDS = 10.0  # for a child that is free
PIPE_BYTES = 2**20
# All that a child gets of the environment: no secret of the parent's.
ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TEMP", "TMP", "LANG", "LC_ALL", "VIRTUAL_ENV")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Decoder:
    """Decode files, each within `deadline` seconds, in at most `num_children` processes; safe from many threads."""

    def __init__(
        self,
        num_children: int = NUM_CHILDREN,
        *,
        command: Sequence[str] = COMMAND,
        deadline: float = DECODE_SECONDS,
        wait: float = WAIT_SECONDS,
    ) -> None:
        self._command, self._deadline, self._wait = list(command), deadline, wait
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        for _ in range(num_children):
            self._idle.put(_Child(self._command))

    def decode(self, data: bytes) -> Decoded:
        """Decode like cxr.imaging.radiograph.decode_with_notices.

        Raises:
            ImageError: the file cannot be used.
            SiteError: decode_time, decode_memory, decode_crash; decode_busy where no child became free.
        """
        try:
            child = self._idle.get(timeout=self._wait)
        except queue.Empty:
            raise SiteError("decode_busy") from None
        try:
            child = self._fresh(child)  # it may have been killed from outside while it waited
            return child.decode(data, self._deadline)
        finally:
            self._idle.put(self._fresh(child))  # a new one starts in the background; nobody waits for it yet

    def _fresh(self, child: "_Child") -> "_Child":
        if child.alive:
            return child
        child.close()
        return _Child(self._command)

    def close(self) -> None:
        """End the children that are idle; a busy one ends with this process."""
        while not self._idle.empty():
            self._idle.get().close()


class _Child:
    """One child process; used by one thread at a time."""

    def __init__(self, command: list[str]) -> None:
        environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | ONE_THREAD
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment
        )
        _widen(self._process.stdin, self._process.stdout)
        self._ready = self._doomed = False

    @property
    def alive(self) -> bool:
        return not self._doomed and self._process.poll() is None

    def decode(self, data: bytes, deadline: float) -> Decoded:
        """Decode one file. Raises: ImageError, SiteError."""
        if not self._ready:
            self._within(START_SECONDS, self._read)
            self._ready = True
        return self._within(deadline, lambda: self._ask(data))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(BrokenPipeError):  # what it did not read any more
            self._process.stdin.close()
        self._process.stdout.close()

    def _ask(self, data: bytes) -> Decoded:
        write_message(self._process.stdin, data)
        header = json.loads(self._read())
        if header["code"] in ERROR_STATUS:
            raise ImageError(header["code"], header["message"])
        if header["code"]:
            raise SiteError(header["code"])
        radiograph = np.frombuffer(self._read(), np.uint8).reshape(header["shape"])
        return radiograph, tuple(header["notices"]), header["type"]

    def _read(self) -> bytearray:
        message = read_message(self._process.stdout)
        if message is None:
            raise EOFError
        return message

    def _within(self, seconds: float, act: Callable[[], T]) -> T:
        """Act, and kill the child where that takes longer: its pipes then end, and the action with them."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            return act()
        except (BrokenPipeError, EOFError):
            self._process.kill()
            code = "decode_time" if expired.is_set() else "decode_crash"
            logger.warning("%s: exit status %d; a fresh decoder is started", code, self._process.wait())
            raise SiteError(code) from None
        finally:
            timer.cancel()
            self._doomed = self._doomed or expired.is_set()


def _widen(*pipes: IO[bytes]) -> None:
    """Let a pipe hold a megabyte (Linux), so that a picture crosses it in few steps."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        for pipe in pipes:
            with contextlib.suppress(OSError):  # above what the system allows its users
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
