"""The standard descriptors 0, 1 and 2: open in every process, so that no other file or pipe can get their numbers."""

import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # at the place of their number


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
