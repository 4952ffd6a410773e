"""Processes that start in a moment: forked from one that has imported the libraries and computed nothing with them yet.

TensorFlow takes many seconds to import, and a test of twenty kills starts twenty processes.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]

START = """
import json, os, sys, traceback
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path[:0] = [{root!r}, {root!r} + "/tests/support"]
{code}
print("ready", flush=True)
for line in sys.stdin:
    process = os.fork()
    if process == 0:
        os.dup2(2, 1)
        try:
            status = job(*json.loads(line)) or 0
        except BaseException:
            traceback.print_exc()
            status = 99
        os._exit(status)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Forker:
    """Start processes of `code`, which imports what it needs and defines `job(*arguments)`, one at a time."""

    def __init__(self, code: str, log: Path) -> None:
        self._log = log.open("wb")
        command = [sys.executable, "-c", START.format(root=str(ROOT), code=textwrap.dedent(code))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        assert self._process.stdout.readline() == "ready\n", log.read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def start(self, *arguments: object) -> int:
        """Start a process; return its number."""
        self._process.stdin.write(json.dumps(arguments, default=str) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def wait(self) -> int:
        """Wait for the process to end; return its exit status, negative for a signal."""
        return int(self._process.stdout.readline())


def runs(process: int) -> bool:
    """Say whether a process has not ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
