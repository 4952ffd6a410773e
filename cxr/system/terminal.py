"""What a long run says to the terminal, and keeps others from saying there."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO


def say(text: object, stream: TextIO | None = None, end: str = "\n") -> None:
    """Print, also where nobody reads it any more: hours of work must not end with a closed pipe or a full terminal log.

    Args:
        stream: the standard output by default.
    """
    stream = stream or sys.stdout
    if stream is None:  # it was closed before the start
        return
    try:
        print(text, file=stream, end=end, flush=True)
    except OSError:
        with contextlib.suppress(OSError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def show_what_cannot_be_encoded() -> None:
    """Let the output escape characters that the terminal's encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # it was closed
            stream.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    r"""Escape what a terminal would act on or cannot show, such as colours, line breaks and bytes that are no text.

    Two texts that differ give results that differ: a backslash becomes two.
    """
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(one) for one in text)


def _escaped(one: str) -> str:
    if one == "\\":
        return "\\\\"
    if one.isprintable():
        return one
    if "\udc80" <= one <= "\udcff":  # how Python keeps a byte of a file name that is no UTF-8
        return f"\\x{ord(one) - 0xDC00:02x}"
    return f"\\u{ord(one):04x}" if "\x80" <= one <= "\xff" else one.encode("unicode_escape").decode()


class SayHandler(logging.Handler):
    """Print what the modules have to tell the user, without level and module, which `basicConfig` would add."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        say(self.format(record))


def fail(message: object, exit_code: int) -> int:
    """Say on stderr why the run ends, and return its exit code."""
    if sys.stderr is not None:
        say(message, sys.stderr)
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
