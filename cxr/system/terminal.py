"""What a long run says to the terminal, and keeps others from saying there."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


def say(text: object) -> None:
    """Print a line, also where nobody reads it any more: hours of training must not end with a closed pipe."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class SayHandler(logging.Handler):
    """Print what the modules have to tell the user."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        say(self.format(record))


def fail(message: object, exit_code: int) -> int:
    """Say on stderr why the run ends, and return its exit code."""
    with contextlib.suppress(BrokenPipeError):
        print(message, file=sys.stderr, flush=True)
    return exit_code


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what native libraries write to stderr while they start; an exception still shows it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(stderr, kept.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
