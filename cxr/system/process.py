"""The process itself: its standard descriptors, how it ends, how much freed memory it keeps.

Native code prints to descriptors 1 and 2 whatever stands behind them, and the interpreter's own way out frees what
its threads still use: the process then aborts, or hangs.
"""

import ctypes
import ctypes.util
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # at the place of their number
# Names and numbers: malloc.h of the GNU C library, mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
# Bytes; from here on a block is mapped for itself, and unmapped when it is freed. The arrays of a radiograph of one
# megapixel are below: mapped anew for each answer they cost 4,500 page faults, a seventh of the site's processor time.
BIG_BLOCK = 2 * 1024**2
NUM_ARENAS = 2


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return what asks a process to end: Ctrl-C, SIGTERM and SIGHUP, the end of its terminal or connection.

    Not SIGHUP where it is ignored (`nohup`), and on Windows, which has none.
    """
    ignored = not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_at_once_on_signals() -> None:
    """Let `ending_signals` end the process with 128 + number, until somebody handles them better."""

    def end(number: int, _frame: object) -> NoReturn:
        remove_exports()
        os._exit(128 + number)

    for number in ending_signals():
        signal.signal(number, end)


def leave(exit_code: int, clean_up: Callable[[], None]) -> NoReturn:
    """End the process without waiting for any thread; the log is written as far as somebody reads it.

    Args:
        clean_up: removes what threads may be using still; what they run into then is not reported any more.
    """
    logging.shutdown()
    logging.disable()
    threading.excepthook = lambda _failure: None
    clean_up()
    os._exit(exit_code)


def hold_standard_descriptors() -> None:
    """Open the null device wherever a standard descriptor is closed (`2>&-`). To be called before anything is opened.

    Native libraries print to the numbers 1 and 2 whatever stands behind them: a model file, or the pipe that carries
    pictures.
    """
    for number, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)  # else a child process would have it closed again
        if getattr(sys, name) is None:  # what Python makes of a descriptor that is closed at its start
            setattr(sys, name, os.fdopen(number, mode, errors="backslashreplace", closefd=False))


def keep_freed_memory_small() -> bool:
    """Set the allocator so that large blocks go back at once and threads share few arenas; say whether it could.

    By default the library raises its limit for mapped blocks to 32 MiB as they are freed, and gives every thread an
    arena of its own: what a burst of large uploads took stays with the process for good.
    """
    try:
        mallopt = ctypes.CDLL(ctypes.util.find_library("c")).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be found
        return False
    settings = {M_MMAP_THRESHOLD: BIG_BLOCK, M_TRIM_THRESHOLD: BIG_BLOCK, M_ARENA_MAX: NUM_ARENAS}
    done = [mallopt(name, value) == 1 for name, value in settings.items()]
    return all(done)


def export_prefix() -> str:
    """Return how the names of this process's temporary folders begin, through which OpenVINO gets a network."""
    return f"cxr-openvino-{os.getpid()}-"


def remove_exports() -> None:
    """Remove this process's temporary folders, for an end in the middle of loading."""
    for folder in Path(tempfile.gettempdir()).glob(f"{export_prefix()}*"):
        shutil.rmtree(folder, ignore_errors=True)
