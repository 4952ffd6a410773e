"""SIGTERM at any moment of the start: the site ends within seconds, whatever its threads are doing."""

import os
import signal
import subprocess
import sys
import time

import pytest
from site_tools import ROOT

from gradcam import MODEL_PATH

pytestmark = pytest.mark.skipif(not MODEL_PATH.exists(), reason="the shipped model file is missing")


def end_after(seconds, folder):
    """Start the site with the shipped model, send SIGTERM; return the exit status and what it wrote."""
    environment = os.environ | {"TMPDIR": str(folder)}
    command = [sys.executable, "app.py", "--port", "0"]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, **streams) as process:
        try:
            time.sleep(seconds)
            process.send_signal(signal.SIGTERM)
            return process.wait(20), process.stderr.read()
        finally:
            process.kill()


def assert_ends_well(moments, folder):
    for seconds in moments:
        status, log = end_after(seconds, folder)
        assert status in (0, 128 + signal.SIGTERM, -signal.SIGTERM), f"after {seconds} s: {log}"
        assert "Traceback" not in log
        assert "terminate" not in log
        assert list(folder.iterdir()) == []


@pytest.mark.fault("H66")
def test_sigterm_at_some_moments_of_the_start(tmp_path):
    assert_ends_well((0.3, 1, 2, 4), tmp_path)


@pytest.mark.slow
@pytest.mark.fault("H66")
def test_sigterm_at_fifty_moments_of_the_start(tmp_path):
    assert_ends_well([number / 5 for number in range(50)], tmp_path)
