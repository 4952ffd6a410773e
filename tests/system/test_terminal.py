"""What reaches the terminal."""

import logging
import os
import subprocess
import sys

import pytest

from cxr.system.terminal import SayHandler, quiet_stderr


def test_native_noise_is_kept_from_stderr_unless_something_fails(capfd):
    with quiet_stderr():
        os.write(2, b"noise\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ZeroDivisionError), quiet_stderr():
        os.write(2, b"the reason\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "the reason\n"
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


def test_what_modules_say_is_printed_without_level_and_module():
    code = (
        "import logging; from cxr.system.terminal import SayHandler\n"
        "logging.basicConfig(handlers=[SayHandler()], level=logging.INFO, force=True)\n"
        "logging.getLogger('cxr.training.loop').info('Resuming at epoch %d.', 3)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "Resuming at epoch 3.\n"


def test_an_exception_is_printed_below_what_was_said(capsys):
    try:
        raise ValueError("the reason")
    except ValueError:
        SayHandler().handle(logging.getLogger("cxr").makeRecord("cxr", 40, "", 1, "Failed.", (), sys.exc_info()))
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == ("Failed.", "ValueError: the reason")
