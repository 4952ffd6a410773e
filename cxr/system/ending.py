"""How a process ends that has native code at work in its threads: at once, and without running into that code.

The interpreter's own way out frees what such a thread still uses: the process then aborts, or hangs.
"""

import logging
import os
import signal
from typing import NoReturn


def end_at_once_on_signals() -> None:
    """Let SIGTERM and Ctrl-C end the process with 128 + number, until somebody handles them better."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: os._exit(128 + number))


def leave(exit_code: int) -> NoReturn:
    """End the process without waiting for any thread; the log is written as far as somebody reads it."""
    logging.shutdown()
    os._exit(exit_code)
