"""Asynchronous logging: a thread writes the lines, so that no request waits for a slow reader of the log."""

import logging
import os
import queue
import threading
import time

MAX_LINES = 10_000  # that wait to be written: some megabytes
FLUSH_SECONDS = 1.0  # for what is left at the end


class BackgroundHandler(logging.Handler):
    """Write to a file descriptor from a daemon thread.

    Where the reader stops (a pager, Ctrl-S, a full disk), lines are dropped and counted once MAX_LINES wait, and the
    count is written as soon as somebody reads again.
    """

    def __init__(self, descriptor: int, max_lines: int = MAX_LINES) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: queue.Queue[str] = queue.Queue(max_lines)
        self._num_dropped = 0
        self._writer: threading.Thread | None = None
        self._process = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Put one record into the queue, or count it as dropped."""
        if self._process != os.getpid():  # also after a fork: threads stay behind in the parent
            self._process = os.getpid()
            self._writer = threading.Thread(target=self._write_for_ever, name="log", daemon=True)
            self._writer.start()
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            self._num_dropped += 1

    def flush(self) -> None:
        """Wait for what is queued to be written, at most FLUSH_SECONDS."""
        end = time.monotonic() + FLUSH_SECONDS
        while self._lines.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)

    def _write_for_ever(self) -> None:
        while True:
            line = self._lines.get()
            num_dropped, self._num_dropped = self._num_dropped, 0
            if num_dropped:
                line = f"{num_dropped} lines were dropped here: nobody read the log.\n{line}"
            self._write(line + "\n")
            self._lines.task_done()

    def _write(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except OSError:  # closed, or on a full disk: there is nowhere left to say so
                return


def log_to(descriptor: int, format_: str, level: int = logging.INFO) -> None:
    """Send the root logger's records to a file descriptor, without ever waiting for it; one set-up before wins."""
    handler = BackgroundHandler(descriptor)
    handler.setFormatter(logging.Formatter(format_))
    logging.basicConfig(level=level, handlers=[handler])
