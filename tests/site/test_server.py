"""The site behind its real server: sockets, deadlines, overload and the end."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from quick_site import expected_probabilities
from site_tools import FORM, ROOT, ask, ask_raw, form, noisy_png, png, running_site

from cxr.imaging.radiograph import decode_radiograph
from cxr.site.errors import ERRORS, MAX_REQUEST_BYTES
from cxr.site.middleware import HEADERS


@pytest.fixture(scope="module")
def server():
    with running_site("--read-seconds", 2) as running:
        yield running


def post(port, data, path="/api/predict", timeout=60):
    return ask(port, "POST", path, form(("x.png", data)), {"Content-Type": FORM}, timeout)


def post_head(length):
    """The head of an upload of so many bytes."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


def open_files(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid):
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def is_up(port):
    return ask(port, path="/healthz")[0] == 200


def in_app_style(answer, code):
    """Whether a raw answer is the site's own error page, with its headers."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")[1:])
    assert {name: lines[name] for name in HEADERS} == HEADERS
    assert lines["Cache-Control"] == "no-store"
    assert "Server" not in lines
    return ERRORS[code].title.encode() in body


@pytest.mark.fault("H03")
@pytest.mark.parametrize(
    "head",
    [
        f"Content-Length: {2**30}",  # more than there is, and more than is read
        f"Content-Length: {MAX_REQUEST_BYTES + 2**21}",
    ],
)
def test_a_claim_beyond_the_limit_is_413_before_the_body_comes(server, head):
    request = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n{head}\r\n\r\n"
    answer = ask_raw(server.port, request.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert in_app_style(answer, "request_too_large")


@pytest.mark.fault("H03")
def test_a_chunked_body_beyond_the_limit_is_413(server):
    request = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(request.encode())
        try:
            for _ in range(MAX_REQUEST_BYTES // 2**20 + 4):
                connection.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            return  # the server has hung up, which is what it is for
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert is_up(server.port)


@pytest.mark.fault("H03")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"100000000000000000\r\n", b"413"),  # 2^68 bytes
        (b"3000000\r\n", b"413"),
        (b"1\r\nx\r\nfffffffff\r\n", b"413"),
        (b"1" * 2000, b"400"),  # a length that never ends
        (b"1;" + b"x=" + b"y" * 2000, b"400"),
        (b"0\r\n" + b"X: y\r\n" * 8000, b"400"),  # a trailer that never ends
    ],
)
def test_a_chunk_that_claims_too_much_is_refused_at_once(server, sent, status):
    request = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request.encode() + sent)  # and nothing more: the deadline is 30 s
        assert connection.recv(100).startswith(b"HTTP/1.1 %s " % status)
    assert is_up(server.port)


@pytest.mark.fault("H04")
def test_oversized_heads(server):
    assert ask(server.port, path="/" + "x" * 10_000)[0] == 404
    assert ask(server.port, headers={f"X-{number}": "x" for number in range(100)})[0] == 200
    answer = ask_raw(server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 300_000 + b"\r\n\r\n")
    assert answer.split()[1] == b"431"
    assert in_app_style(answer, "headers_too_large")


@pytest.mark.fault("H07")
@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: evil.example",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\nHost: localhost",
        b"GET / HTTP/1.1\r\nX: no host",
    ],
)
def test_wrong_missing_and_double_hosts(server, head):
    answer = ask_raw(server.port, head + b"\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"evil" not in answer


@pytest.mark.fault("H07")
def test_forwarded_headers_are_ignored(server):
    answer = ask(server.port, headers={"X-Forwarded-Host": "evil.example", "X-Forwarded-For": "1.2.3.4"})
    assert answer[0] == 200
    assert b"evil" not in answer[2]


@pytest.mark.fault("H12")
def test_the_server_names_no_version(server):
    for path in ("/", "/nothing", "/healthz"):
        headers = ask(server.port, path=path)[1]
        assert "server" not in headers
        assert {name: headers[name.lower()] for name in HEADERS} == HEADERS


@pytest.mark.fault("H14")
def test_a_request_that_trickles_in_is_cut_and_nobody_waits_for_it(server):
    start = time.monotonic()
    ends = []

    def trickle(head):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(head)
            try:
                while time.monotonic() - start < 45:
                    connection.sendall(b"x")
                    connection.settimeout(0.1)
                    try:
                        if not connection.recv(1000):
                            break
                    except TimeoutError:
                        continue
            except OSError:
                pass
            ends.append(time.monotonic() - start)

    body = (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: 100000\r\n\r\n".encode()
    )
    heads = [b"GET / HTTP/1.1\r\nX: ", body] * 10
    clients = [threading.Thread(target=trickle, args=(head,)) for head in heads]
    for one in clients:
        one.start()
    assert post(server.port, png())[0] == 200  # while they trickle
    for one in clients:
        one.join()
    assert len(ends) == 20
    assert max(ends) < 40  # the deadline of this server is 2 s; each byte alone would have kept it alive


@pytest.mark.fault("H15")
def test_clients_that_hang_up_leave_nothing_behind(server):
    with ThreadPoolExecutor(12) as crowd:  # libraries start threads of their own at their first work
        assert {status for status, _, _ in crowd.map(lambda seed: post(server.port, png(seed)), range(12))} == {200}
    time.sleep(2.5)
    num_files, num_threads = open_files(server.pid), threads(server.pid) + 2  # OpenCV's own
    body = form(("x.png", noisy_png((400, 400))))
    for number in range(100):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(post_head(len(body)) + (body if number % 2 else body[: len(body) // 2]))
    for _ in range(100):  # half of them hung up while their answer was being worked on
        if open_files(server.pid) == num_files and threads(server.pid) <= num_threads:
            break
        time.sleep(0.1)
    assert open_files(server.pid) == num_files
    assert threads(server.pid) <= num_threads
    assert post(server.port, png())[0] == 200


@pytest.mark.fault("H16")
def test_a_crowd_gets_its_own_answers_or_503(server):
    def visit(seed):
        status, headers, body = post(server.port, png(seed))
        if status == 503:
            assert int(headers["retry-after"]) > 0
            return None
        assert status == 200
        return [one["probability"] for one in json.loads(body)["results"][0]["findings"]]

    expected = {seed: expected_probabilities(decode_radiograph(png(seed))) for seed in range(16)}
    with ThreadPoolExecutor(64) as crowd:
        found = list(crowd.map(visit, [seed for seed in range(16) for _ in range(8)]))
    answered = [(number // 8, one) for number, one in enumerate(found) if one is not None]
    assert len(answered) >= 12
    for seed, probabilities in answered:
        np.testing.assert_allclose(probabilities, expected[seed], atol=1e-5)


@pytest.mark.fault("H17")
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\x00\xff garbage \r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\nbad header\r\n\r\n",
    ],
    ids=["negative", "two lengths", "huge", "encoding", "tls", "garbage", "header"],
)
def test_what_is_not_http_is_refused(server, request_bytes):
    answer = ask_raw(server.port, request_bytes)
    assert not answer or answer.split()[1] in (b"400", b"413", b"501")
    assert b"Traceback" not in answer
    assert is_up(server.port)


@pytest.mark.fault("H17")
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_length_and_chunks_together_are_no_second_request(server, version):
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    request = b"POST /predict HTTP/%s\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: 4\r\n" % version
    answer = ask_raw(server.port, request + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled)
    assert answer.startswith(b"HTTP/%s 400" % version)
    assert answer.count(b"HTTP/1.") == 1
    assert is_up(server.port)


@pytest.mark.fault("H17")
@pytest.mark.parametrize(("host", "status"), [(b"localhost", b"200"), (b"elsewhere.example", b"400")])
def test_a_host_in_the_request_line_counts_and_not_the_header(server, host, status):
    answer = ask_raw(server.port, b"GET http://%s/api HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % host)
    assert answer.split()[1] == status


@pytest.mark.fault("H17")
def test_random_bytes_never_stop_the_server(server):
    generator = random.Random(0)  # noqa: S311 - a seed for a test
    for _ in range(100):
        data = bytes(generator.randrange(256) for _ in range(generator.randrange(1, 200)))
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(data)
    assert is_up(server.port)


def test_a_request_over_the_budget_of_memory_is_503():
    code = (
        "import cxr.site.server, runpy, sys; cxr.site.server.MAX_HELD_BYTES = 300_000; sys.argv = ['quick_site.py'];"
        "runpy.run_path('tests/support/quick_site.py', run_name='__main__')"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline().split()[2].rsplit(":", 1)[1])
            assert post(port, png())[0] == 200
            answer = ask_raw(port, post_head(400_000) + bytes(350_000))
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert in_app_style(answer, "busy")
            assert b"\r\nRetry-After: 2\r\n" in answer
            assert post(port, png())[0] == 200
        finally:
            process.terminate()


@pytest.mark.fault("H84")
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("prüfung".encode(), {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
        (b"pr\xfcfung", {"LC_ALL": "C.UTF-8"}),
    ],
    ids=["C locale", "no UTF-8"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are text")
def test_a_project_folder_that_the_locale_cannot_write_serves_the_whole_site(tmp_path, name, settings):
    folder = tmp_path / os.fsdecode(name)
    for part in ("cxr", "static", "templates", "tests/support"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ("app.py", "gradcam.py"):
        shutil.copy(ROOT / script, folder)
    with running_site(script=folder / "tests" / "support" / "quick_site.py", env=os.environ | settings) as running:
        sheet = ask(running.port, path="/static/style.css")
        assert (sheet[0], sheet[2]) == (200, (ROOT / "static" / "style.css").read_bytes())
        assert (
            ask(running.port, path="/static/style.css", headers={"If-Modified-Since": sheet[1]["last-modified"]})[0]
            == 304
        )
        assert ask(running.port, path="/static/nothing")[0] == 404
        assert ask(running.port, path="/")[0] == 200
        assert post(running.port, png(), "/predict")[0] == 200
        running.stop()
        assert "Traceback" not in running.process.stderr.read()
