"""What reaches the terminal."""

import os

import pytest

from cxr.system.terminal import quiet_stderr


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
