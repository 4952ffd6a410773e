"""How a process ends when it is asked to: with the shell's exit code, without a traceback or a temporary folder."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from cxr.system.process import ending_signals

ROOT = Path(__file__).parents[2]
unix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
EVERY_SIGNAL = [signal.SIGINT, signal.SIGTERM, pytest.param(getattr(signal, "SIGHUP", None), marks=unix_only)]


def run_code(code, temp):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(temp)},
    )


@unix_only
@pytest.mark.fault("H78")
def test_the_end_of_the_terminal_counts_unless_nohup_has_it_ignored(monkeypatch):
    assert ending_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert ending_signals() == (signal.SIGINT, signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)
    monkeypatch.delattr(signal, "SIGHUP")  # Windows
    assert ending_signals() == (signal.SIGINT, signal.SIGTERM)


@pytest.mark.fault("H78", "I79")
@pytest.mark.parametrize("number", EVERY_SIGNAL)
def test_an_end_in_the_middle_of_loading_leaves_no_temporary_folder(tmp_path, number):
    run = run_code(
        f"""
        import signal, tempfile
        from cxr.system.process import end_at_once_on_signals, export_prefix
        end_at_once_on_signals()
        with tempfile.TemporaryDirectory(prefix=export_prefix()) as folder:
            open(folder + "/model.bin", "wb").write(bytes(100))
            print("loading", flush=True)
            signal.raise_signal({int(number)})
        print("loaded")
        """,
        tmp_path,
    )
    assert (run.returncode, run.stdout, run.stderr) == (128 + number, "loading\n", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("I79")
@pytest.mark.parametrize("number", EVERY_SIGNAL)
def test_gradcam_ends_without_a_traceback(tmp_path, number):
    run = run_code(
        f"""
        import runpy, signal, sys
        sys.argv = ["gradcam.py", "no such file"]
        try:
            runpy.run_path("gradcam.py", run_name="__main__")
        except SystemExit:
            signal.raise_signal({int(number)})
        print("goes on")
        """,
        tmp_path,
    )
    assert (run.returncode, run.stdout) == (128 + number, "")
    assert "Traceback" not in run.stderr
