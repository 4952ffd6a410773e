"""Clients that are slow or stand still, on a real server: they lose their connection, nobody else loses anything."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote

import pytest
from site_tools import FORM, ROOT, ask, ask_raw, form, noisy_png, png, running_site

GRACE = 2  # seconds that the server of these tests gives


@pytest.fixture(scope="module")
def server():
    with running_site("--read-seconds", GRACE) as running:
        yield running


@contextlib.contextmanager
def changed_site(before):
    """Run the quick site after some lines that change the server's modules."""
    code = f"import runpy, sys\n{before}\nsys.argv = ['quick_site.py']\n"
    code += "runpy.run_path('tests/support/quick_site.py', run_name='__main__')"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield int(process.stdout.readline().split()[2].rsplit(":", 1)[1])
        finally:
            process.kill()


@contextlib.contextmanager
def clients(port, num_clients, data):
    """Connect clients with a tiny window that send and then never read."""
    connections = []
    try:
        for _ in range(num_clients):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            one.connect(("127.0.0.1", port))
            one.settimeout(5)
            with contextlib.suppress(TimeoutError):
                one.sendall(data)
            connections.append(one)
        yield connections
    finally:
        for one in connections:
            one.close()


def upload_of(*files, path="/predict"):
    body = form(*(("x.png", one) for one in files), fields=[("script", "1")])
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def is_up(port):
    return ask(port, path="/healthz", timeout=5)[0] == 200


def num_connections(pid):
    """The sockets of a process without the listening one and the two of the loop's own."""
    targets = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            targets.append(str(entry.readlink()))
    return sum("socket:" in target for target in targets) - 1


def wait_until(condition, attempts=200):
    for _ in range(attempts):
        if condition():
            return True
        time.sleep(0.1)
    return False


def closed_by_server(connection):
    """Whether the other end has hung up; reads away what is left."""
    connection.settimeout(0.001)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.fault("H50")
def test_readers_that_stand_still_take_no_thread_and_are_cut(server):
    pipelined = b"GET /static/result.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000  # answers of some 20 MB
    with clients(server.port, 20, pipelined):
        for _ in range(5):
            assert is_up(server.port)
            time.sleep(0.2)
        assert ask(server.port, "POST", "/api/predict", form(("x.png", png())), {"Content-Type": FORM})[0] == 200
        assert wait_until(lambda: num_connections(server.pid) == 0)
    assert is_up(server.port)


@pytest.mark.fault("H50")
def test_a_connection_is_answered_in_order_one_request_after_the_other(server):
    requests = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50 + upload_of(png(), path="/api/predict")
    answer = ask_raw(server.port, requests + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200] * 51 + [404]


@pytest.mark.fault("H50")
def test_a_reader_that_keeps_to_the_rate_gets_all_of_it(server):
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect(("127.0.0.1", server.port))
    with connection:
        connection.settimeout(10)
        head = b"Connection: close\r\nHost: localhost\r\n\r\n"
        connection.sendall(b"GET /static/result.css HTTP/1.1\r\n" + head)
        received = b""
        while chunk := connection.recv(2048):
            received += chunk
            time.sleep(0.02)
    assert received.endswith((ROOT / "static" / "result.css").read_bytes())


@pytest.mark.fault("H51")
def test_answers_count_in_the_bound_of_memory_and_who_stands_still_makes_room():
    big = upload_of(*[noisy_png((1024, 1024))] * 8)  # some 10 MB of answer, more than the system's buffers take
    small_bound = (
        "import cxr.site.server as s; s.MAX_HELD_BYTES = 22_000_000; s.PATIENCE_SECONDS = 3; "
        "import cxr.site.connection as c; c.GRACE_SECONDS = 60"
    )
    with changed_site(small_bound) as port, clients(port, 1, big) as (standing,):
        standing.settimeout(60)
        assert standing.recv(15) == b"HTTP/1.1 200 OK"
        closing = big.replace(b"\r\nHost", b"\r\nConnection: close\r\nHost", 1)
        statuses = []
        while b"200" not in statuses and len(statuses) < 10:  # 503 until the patience with the first is over
            with contextlib.suppress(OSError):  # refused while it was being sent
                statuses.append(ask_raw(port, closing, timeout=60)[9:12])
            assert is_up(port)
            time.sleep(1)
        assert statuses[-1] == b"200"
        assert set(statuses) <= {b"200", b"503"}
        assert wait_until(lambda: closed_by_server(standing))


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: loc",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n",
    ],
    ids=["idle", "half a head", "half a body"],
)
@pytest.mark.fault("H52")
def test_connections_that_do_nothing_make_room_for_new_ones(sent):
    with running_site() as running, clients(running.port, 105, sent) as connections:
        for _ in range(5):
            assert is_up(running.port)
        assert sum(map(closed_by_server, connections)) >= 5  # the oldest, not the newest
        assert not closed_by_server(connections[-1])


@pytest.mark.fault("H53")
def test_a_clock_that_is_set_back_moves_no_deadline():
    clock = (
        "import time, itertools; real = time.time; start = real(); "
        "time.time = lambda: real() - (3600 if real() > start + 3 else 0); "
        f"import cxr.site.connection as c; c.GRACE_SECONDS = {GRACE}"
    )
    clock += "; import argparse; parse = argparse.ArgumentParser.parse_args; argparse.ArgumentParser.parse_args = "
    clock += f"lambda self: parse(self, ['--read-seconds', '{GRACE}'])"
    with changed_site(clock) as port:
        time.sleep(3)
        with clients(port, 1, b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n") as (one,):
            one.settimeout(20)
            assert one.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.fault("H54")
def test_nobody_reads_the_log_and_all_are_answered():
    with running_site() as running:  # its log goes into a pipe that nobody reads
        for _ in range(1000):  # more than a pipe holds
            assert is_up(running.port)
        assert running.stop(timeout=15) == 0


@pytest.mark.fault("H55")
def test_out_of_files_the_server_waits_and_says_so_once(tmp_path):
    import resource

    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "tests/support/quick_site.py"], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            port = int(process.stdout.readline().split()[2].rsplit(":", 1)[1])
            assert is_up(port)
            limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
            highest = max(int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir())
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (highest + 3, limits[1]))
            with clients(port, 20, b""):
                wait_until(lambda: "ulimit" in (tmp_path / "log").read_text())
                time.sleep(2)
                assert (tmp_path / "log").read_text().count("ulimit") == 1
                assert (tmp_path / "log").stat().st_size < 20_000
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
                assert is_up(port)
            process.terminate()
            assert process.wait(15) == 0
        finally:
            process.kill()


@pytest.mark.fault("H55")
def test_few_files_mean_few_connections():
    command = f"ulimit -n 64; exec {quote(sys.executable)} tests/support/quick_site.py"
    with subprocess.Popen(
        ["sh", "-c", command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            port = int(process.stdout.readline().split()[2].rsplit(b":", 1)[1])
            with clients(port, 70, b""):
                assert is_up(port)
                answer = ask(port, "POST", "/api/predict", form(("x.png", png())), {"Content-Type": FORM})
                assert answer[0] == 200
        finally:
            process.kill()


@pytest.mark.fault("H56")
def test_an_upload_below_the_rate_is_answered_408_and_not_reset(server):
    with clients(server.port, 1, upload_of(noisy_png((400, 400)))[:50_000]) as (one,):
        one.settimeout(20)
        answer = b""
        with contextlib.suppress(TimeoutError):
            for _ in range(100):
                one.send(b"x")
                one.settimeout(0.1)
                with contextlib.suppress(TimeoutError):
                    while chunk := one.recv(65536):
                        answer += chunk
                    break
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"came in too slowly" in answer


@pytest.mark.fault("H56")
def test_an_upload_above_the_rate_may_take_longer_than_the_grace(server):
    data = upload_of(noisy_png((700, 700)), path="/api/predict").replace(
        b"\r\nHost", b"\r\nConnection: close\r\nHost", 1
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        for start in range(0, len(data), 25_000):  # some 80 kB/s for 2.5 times the grace
            connection.sendall(data[start : start + 25_000])
            time.sleep(0.3)
        assert connection.recv(15) == b"HTTP/1.1 200 OK"
