"""The microsite in a process of its own, and clients that ask it over the loopback interface.

A closed loop: each client waits for its answer before it asks again. `bench_site.py` measures with it, and
`tests/site/test_load.py` holds with it what can be counted.
"""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BOUNDARY = "----load"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
TIMEOUT_SECONDS = 60
REFUSED_SECONDS = 0.2  # that a client waits after a 503, a tenth of what it is asked to


@dataclass(frozen=True)
class Answer:
    """What came back: HTTP status (0 where the connection broke), seconds, number of the picture, JSON document."""

    status: int
    seconds: float
    picture: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Usage:
    """What the site's process and its children hold."""

    rss: int  # bytes
    num_files: int
    num_threads: int
    cpu_seconds: float  # since they started


class RunningSite:
    """`python app.py` on a free port, for as long as a `with` block lasts."""

    def __init__(self, model_path: Path, *, before: str = "", arguments: Sequence[str] = (), **environment: str):
        """Start it.

        Args:
            before: statements to run before the site starts, with the script as module `app`.
            environment: variables to add.
        """
        self.started = time.monotonic()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        code = (
            "import sys; sys.path.insert(0, '.'); from cxr.inference import backend; backend.choose_inference_backend()"
        )
        code += f"\nimport app\n{before}\nsys.exit(app.main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, "--port", "0", "--model-path", str(model_path), *arguments]
        self.process = subprocess.Popen(  # our own script
            command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        line = self.process.stdout.readline()
        if not line.startswith("Listening"):
            self.process.wait()
            raise RuntimeError(f"The site did not start:\n{self.messages()}")
        self.port = int(line.rsplit(":", 1)[1])
        self.listening_seconds = time.monotonic() - self.started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()

    def messages(self) -> str:
        """Return what the site has logged."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict, bytes]:
        """Send one request; return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def wait_until_ready(self, seconds: float = 120) -> float:
        """Wait for the model; return the seconds since the start."""
        while self.ask("GET", "/readyz")[0] != 200:
            if time.monotonic() - self.started > seconds or self.process.poll() is not None:
                raise RuntimeError(f"The site did not become ready:\n{self.messages()}")
            time.sleep(0.1)
        return time.monotonic() - self.started

    def predict(self, data: bytes, picture: int = 0) -> Answer:
        """Send one picture to the programming interface."""
        start = time.monotonic()
        try:
            status, _, body = self.ask("POST", "/api/predict", form(data), **FORM)
            document = json.loads(body)
        except (OSError, http.client.HTTPException):
            status, document = 0, {}
        return Answer(status, time.monotonic() - start, picture, document)

    def usage(self) -> Usage:
        """Add up what the process and its children hold (Linux)."""
        rss = num_files = num_threads = ticks = 0
        for pid in [self.process.pid, *children_of(self.process.pid)]:
            folder = Path("/proc", str(pid))
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                rss += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
                num_files += len(list((folder / "fd").iterdir()))
                num_threads += len(list((folder / "task").iterdir()))
                ticks += sum(map(int, (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        return Usage(rss, num_files, num_threads, ticks / os.sysconf("SC_CLK_TCK"))


def children_of(pid: int) -> list[int]:
    """Return the child processes of a process (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def form(data: bytes, name: str = "x.png") -> bytes:
    """Return a form with one file as a browser sends it."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def picture(seed: int, side: int) -> bytes:
    """Return a smooth grey PNG that no other seed gives."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5), np.uint8)
    return cv2.imencode(".png", cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))[1].tobytes()


def drive(
    site: RunningSite, pictures: Sequence[bytes], num_clients: int, *, seconds: float = 0, num_requests: int = 0
) -> list[Answer]:
    """Let clients ask at the same time, each for `seconds` or `num_requests` times; client k starts at picture k."""
    answers: list[list[Answer]] = [[] for _ in range(num_clients)]
    end = time.monotonic() + seconds

    def ask(client: int) -> None:
        number = 0
        while number < num_requests or (not num_requests and time.monotonic() < end):
            chosen = (client + number) % len(pictures)
            answers[client].append(site.predict(pictures[chosen], chosen))
            number += 1
            if answers[client][-1].status == 503:
                time.sleep(REFUSED_SECONDS)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for of_client in answers for answer in of_client]
