"""A progress line on stderr: redrawn on a terminal, sparse where the output goes to a file."""

import sys
import time

MIN_SECONDS = 0.2  # between two redraws
QUIET_SECONDS = 30.0  # between two lines where nobody watches


class Progress:
    """Show how far a piece of work has come; stays silent about work that is over at once."""

    def __init__(self, label: str, total: int) -> None:
        """Start the clock; nothing is printed yet.

        Args:
            label: what is being done, such as "train: decoding radiographs".
            total: number of steps.
        """
        self.label, self.total = label, total
        self.on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self.started = self.shown = time.monotonic()

    def show(self, done: int, note: str = "") -> None:
        """Report that `done` steps are over."""
        now, last = time.monotonic(), done >= self.total
        due = now - self.shown >= (MIN_SECONDS if self.on_terminal else QUIET_SECONDS)
        if not (due or (last and self.shown > self.started)):
            return
        self.shown = now
        seconds_left = (now - self.started) / max(done, 1) * (self.total - done)
        text = f"{self.label} {done}/{self.total}, {seconds_left:.0f} s left {note}".rstrip()
        self._write(f"\r\033[K{'' if last else text}" if self.on_terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        if sys.stderr is None:  # it was closed before the start
            return
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # nobody reads it any more; the work goes on
            self.on_terminal, self.shown = False, float("inf")
