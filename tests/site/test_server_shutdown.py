"""How the server starts, what it needs, and how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from site_tools import FORM, ROOT, ask, form, noisy_png, png, running_site

from gradcam import MODEL_PATH


def post(port, data, path="/api/predict", timeout=60):
    return ask(port, "POST", path, form(("x.png", data)), {"Content-Type": FORM}, timeout)


def is_up(port):
    return ask(port, path="/healthz")[0] == 200


@pytest.mark.fault("H21", "H78")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_what_was_accepted_is_finished_before_the_end(number):
    with running_site("--delay", 1) as running:
        with ThreadPoolExecutor(8) as crowd:
            answers = [crowd.submit(post, running.port, png(seed)) for seed in range(8)]
            for _ in range(200):  # until all of them have been received and let in
                if open_files_of_port(running.pid) >= 9:
                    break
                time.sleep(0.05)
            time.sleep(0.5)
            running.process.send_signal(number)
            statuses = [one.result()[0] for one in answers]
        assert running.process.wait(30) == 0
    assert statuses == [200] * 8
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=5)


def open_files_of_port(pid):
    """The sockets of a process: the listening one and one per connection."""
    return sum("socket:" in str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.fault("H21")
def test_a_second_signal_ends_at_once():
    with running_site("--delay", 15) as running:

        def visit():
            with pytest.raises((OSError, http.client.HTTPException)):
                post(running.port, png())

        thread = threading.Thread(target=visit)
        thread.start()
        time.sleep(1.5)
        start = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.process.poll() is None  # it waits for the answer
        assert running.stop(signal.SIGTERM, timeout=10) == 128 + signal.SIGTERM
        assert time.monotonic() - start < 10
        thread.join()


@pytest.mark.fault("H21")
def test_without_work_the_end_comes_at_once():
    with running_site() as running:
        assert is_up(running.port)
        start = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - start < 10


@pytest.mark.fault("H22")
def test_ipv6_and_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o555)
    probe = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), "--host", "::1", "--port", "0", "--model-path", "/nonexistent/none.h5"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        line = probe.stdout.readline()
        assert line.startswith("Listening on http://[::1]:")
        port = int(line.rsplit(":", 1)[1])
        for _ in range(100):  # until the model's absence has been noticed, which happens beside the answers
            with socket.create_connection(("::1", port), timeout=30) as connection:
                connection.sendall(f"GET / HTTP/1.1\r\nHost: [::1]:{port}\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while chunk := connection.recv(65536):
                    answer += chunk
            assert answer.startswith(b"HTTP/1.1 200 ")
            if b"python main_train.py" in answer:
                break
            time.sleep(0.1)
        assert b"python main_train.py" in answer
        taken = [sys.executable, str(ROOT / "app.py"), "--host", "::1", "--port", str(port)]
        second = subprocess.run(taken, capture_output=True, text=True, check=False, timeout=60)
        assert second.returncode == 3
        assert len(second.stderr.strip().splitlines()) == 1
    finally:
        probe.terminate()
        assert probe.wait(30) == 0
        probe.stdout.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("H23")
def test_no_temporary_folder_is_needed(tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path / "none"), "PYTHONDONTWRITEBYTECODE": "1"}
    tmp_path.chmod(0o555)
    with running_site(env=environment, cwd=tmp_path) as running:
        data = noisy_png()
        assert len(data) > 2_000_000  # far beyond what servers and frameworks keep in memory by default
        assert post(running.port, data)[0] == 200
        assert post(running.port, data, path="/predict")[0] == 200
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not MODEL_PATH.exists(), reason="the shipped model file is missing")
def test_the_script_answers_with_the_shipped_model_and_listens_before_it_is_loaded():
    command = [sys.executable, str(ROOT / "app.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            port = int(process.stdout.readline().rsplit(":", 1)[1])
            assert ask(port, path="/healthz")[0] == 200
            assert ask(port, path="/readyz")[0] == 503
            assert post(port, png())[0] == 503
            for _ in range(1200):
                if ask(port, path="/readyz")[0] == 200:
                    break
                time.sleep(0.1)
            status, _, body = post(port, (ROOT / "images" / "00000011_001.png").read_bytes())
            assert status == 200
            findings = json.loads(body)["results"][0]["findings"]
            assert len(findings) == 14
            assert all(0 <= one["probability"] <= 1 for one in findings)
        finally:
            process.terminate()
        assert process.wait(30) == 0
