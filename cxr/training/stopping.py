"""How a training run ends before its time: Ctrl-C and SIGTERM, met at the end of the batch, and divergence."""

import os
import signal
import sys
from types import FrameType
from typing import Self


class Stopped(Exception):
    """The run stopped as asked; a checkpoint was written."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number  # the shell's convention: 130 for Ctrl-C, 143 for SIGTERM


class DivergedError(RuntimeError):
    """A loss, weight or logit is not finite."""


class StopRequest:
    """Note the first signal inside a `with` block; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal_number = 0

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal_number != 0

    def __enter__(self) -> Self:
        self._old = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.signal_number = number
        sys.stderr.write("\nStopping after this batch, with a checkpoint. Once more stops at once.\n")
