"""How a training run begins, who takes part, and how it ends. Imports Keras only when asked to.

Processes are described by the environment variables that Keras reads. Ctrl-C, SIGTERM and SIGHUP are met at the end
of the batch; a loss that is not finite ends the run. What trains says so in the same words and exit codes.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Self

from cxr.data.boxes import BoxError
from cxr.data.problems import LabelError
from cxr.imaging.limits import ImageError
from cxr.inference.backend import BackendError, load_keras
from cxr.system.atomic_files import LockedError, describe_error
from cxr.system.hdf5_guard import ModelFileError
from cxr.system.process import ending_signals
from cxr.system.terminal import fail, quiet_stderr
from cxr.training.checkpoint import ResumeError

ADDRESSES, NUM_PROCESSES, PROCESS_ID = (
    f"KERAS_DISTRIBUTION_{name}" for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)
LOST_PEER_SIGNS = ("gloo", "nccl", "connection closed", "coordination", "heartbeat", "barrier", "peer")


class ParallelError(ValueError):
    """Processes or devices that cannot train together; the message says what to change."""


def configured_processes(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Return (number of processes, number of this one from 0) as Keras' environment variables say; (1, 0) without.

    Raises:
        ParallelError: some of them are missing or make no sense.
    """
    given = {name: environment.get(name, "") for name in (ADDRESSES, NUM_PROCESSES, PROCESS_ID)}
    if not any(given.values()):
        return 1, 0
    numbers = [given[name] for name in (NUM_PROCESSES, PROCESS_ID)]
    if not given[ADDRESSES] or not all(number.isdecimal() for number in numbers) or int(numbers[1]) >= int(numbers[0]):
        received = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ParallelError(
            f"Expected {ADDRESSES} as host:port of process 0, {NUM_PROCESSES} of at least 1 and {PROCESS_ID} from 0 to "
            f"one less. Received: {received}. Set all three, or none."
        )
    return int(numbers[0]), int(numbers[1])


def is_lost_peer(error: BaseException) -> bool:
    """Say whether an error means that another process of the run has gone."""
    text = f"{type(error).__name__} {error}".lower()
    return configured_processes()[0] > 1 and any(sign in text for sign in LOST_PEER_SIGNS)


class Stopped(Exception):
    """The run stopped as asked; a checkpoint was written."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number  # the shell's convention: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP


class DivergedError(RuntimeError):
    """A loss, weight or logit is not finite."""


RUN_ENDS = (DivergedError, Stopped, KeyboardInterrupt, OSError)


def tell_end(error: BaseException) -> int:
    """Say why a run ended before its time, with one of RUN_ENDS, and return its exit code."""
    if isinstance(error, DivergedError):
        return fail(error, 4)
    if isinstance(error, Stopped):
        return fail("Stopped; the same command goes on from here.", error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return fail("Stopped.", 130)
    return fail(describe_error(error), 3)


def exit_code_of(work: Callable[[], int], batch_size: int) -> int:
    """Do the work of a program that trains on the three splits; say in a line why it ended, return its exit code.

    Args:
        work: returns the exit code where nothing is raised.
        batch_size: half of it is advised where memory is short.
    """
    try:
        return work()
    except (BackendError, BoxError, ImageError, LabelError, ModelFileError, ParallelError, ResumeError) as error:
        return fail(error, 2)
    except LockedError as error:
        return fail(error, 5)
    except RUN_ENDS as error:
        return tell_end(error)
    except Exception as error:
        if isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__:
            return fail(f"Out of memory. Try --batch-size {max(1, batch_size // 2)}.", 3)
        if is_lost_peer(error):
            lost = "Another process of this run has ended, so this one cannot go on either."
            fail(f"{lost} Start all of them again; they go on from the last checkpoint.", 6)
            os._exit(6)  # the usual way out would have JAX wait for the lost process and then abort
        raise


def import_keras() -> None:
    """Import Keras, which takes seconds, with the settings by which a run repeats another's figures."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Operations side by side add up gradients in changing order: metrics of one seed then differ in the fourth digit.
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with quiet_stderr():
        load_keras()


class StopRequest:
    """Note the first signal inside a `with` block; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal_number = 0

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal_number != 0

    def __enter__(self) -> Self:
        self._old = {number: signal.signal(number, self._note) for number in ending_signals()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            os._exit(128 + number)
        self.signal_number = number
        sys.stderr.write("\nStopping after this batch, with a checkpoint. Once more stops at once.\n")
