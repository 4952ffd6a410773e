"""The running site under load and for long: what is counted, never how fast it was (`bench_site.py` says that).

The short forms share one process of the site, with a stand-in for the model; the slow ones run for minutes, with a
real network.
"""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import radiographs as files
from broken_pictures import broken_jpegs, broken_pngs

from benchmarks.site_load import FORM, RunningSite, drive, form, picture
from cxr.imaging.radiograph import ImageError, decode_radiograph

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc (Linux)")

PICTURES = [picture(seed, 128) for seed in range(16)]
BAD = [*broken_pngs().values(), *broken_jpegs().values(), b"", b"hello", files.dicom_start() + b"x" * 99]
LEAK_BYTES = 100_000  # per request, in the mutation below
MAX_GROWTH_PER_REQUEST = 50_000  # bytes


@pytest.fixture(scope="module")
def spool(tmp_path_factory):
    """Where the site would put temporary files."""
    return tmp_path_factory.mktemp("spool")


STAND_IN = """
sys.path.append("tests/support")
import quick_site, cxr.site.model_slot
cxr.site.model_slot.ModelSlot.__init__.__kwdefaults__["load"] = lambda path, precision: quick_site.StandIn()
"""


def start_stand_in(before="", **environment):
    """Start the site around the stand-in; the model file is any that exists."""
    return RunningSite(Path(__file__), before=STAND_IN + before, **environment)


@pytest.fixture(scope="module")
def site(spool):
    with start_stand_in(TMPDIR=str(spool)) as running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="module")
def alone(site):
    """What each picture is answered with when nobody else asks."""
    return answers_alone(site)


def answers_alone(site):
    return [site.predict(data).document["results"] for data in PICTURES]


@pytest.fixture(scope="module")
def real_site(spool):
    """The site with a DenseNet121, for the slow tests."""
    from served_model import served_model

    with RunningSite(served_model().path, TMPDIR=str(spool)) as running:
        running.wait_until_ready()
        yield running


def assert_own_results(answers, alone):
    """Each answer is the one of its own picture, digit for digit."""
    for answer in answers:
        if answer.status == 200:
            assert answer.document["results"] == alone[answer.picture]


@pytest.mark.fault("L10")
def test_the_pictures_have_answers_that_differ(alone):
    probabilities = np.array([[one["probability"] for one in results[0]["findings"]] for results in alone])
    distances = np.abs(probabilities[:, None] - probabilities[None]).max(axis=2) + np.eye(len(alone))
    assert distances.min() > 1e-4


@pytest.mark.fault("L01", "L02")
def test_as_many_clients_as_have_room_are_all_answered(site, alone):
    for num_clients in (1, 4):
        answers = drive(site, PICTURES, num_clients, num_requests=4)
        assert [answer.status for answer in answers] == [200] * 4 * num_clients
        assert_own_results(answers, alone)


@pytest.mark.fault("L03", "L04", "L05", "H16")
def test_too_many_clients_are_answered_or_told_to_come_again(site, alone):
    answers = drive(site, PICTURES, 64, num_requests=2)
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 503}  # neither 500, nor a broken connection, nor a timeout
    assert statuses.count(200) >= 12  # there is room for twelve at once
    assert_own_results(answers, alone)
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.document["code"] == "busy"
    assert site.predict(PICTURES[0]).status == 200  # at once after the crowd
    assert site.ask("GET", "/healthz")[0] == 200


def open_slowly(site, num_clients, stop):
    """Keep connections open that send a byte of a form now and then."""
    body = form(PICTURES[0])
    head = f"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(num_clients)]
    for connection in connections:
        connection.sendall(head.encode())

    def trickle():
        for place in range(len(body)):
            if stop.wait(0.5):
                break
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(body[place : place + 1])
        for connection in connections:
            connection.close()

    thread = threading.Thread(target=trickle)
    thread.start()
    return thread


@pytest.mark.fault("L06")
def test_slow_clients_keep_nobody_else_waiting(site, alone):
    stop = threading.Event()
    thread = open_slowly(site, 50, stop)
    try:
        answers = drive(site, PICTURES, 2, num_requests=5)
    finally:
        stop.set()
        thread.join()
    assert [answer.status for answer in answers] == [200] * 10
    assert_own_results(answers, alone)


def large_upload(num_bytes):
    """Return a readable PNG that bytes after its end make as large as wanted."""
    return PICTURES[0] + bytes(num_bytes - len(PICTURES[0]))


def assert_large_uploads_are_bounded(site, spool, num_clients, num_requests):
    """Send uploads just under the limit at once, and watch the memory of the site."""
    done, peak = threading.Event(), [0]

    def watch():
        while not done.wait(0.02):
            peak[0] = max(peak[0], site.usage().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    answers = drive(site, [large_upload(32 * 2**20 - 1000)], num_clients, num_requests=num_requests)
    done.set()
    watcher.join()
    print(f"{len(answers)} uploads of 32 MiB, {num_clients} at once: peak {peak[0] / 2**20:.0f} MiB")
    assert {answer.status for answer in answers} <= {200, 503}
    assert any(answer.status == 200 for answer in answers)
    assert peak[0] < 2 * 2**30  # bytes
    assert list(spool.rglob("*")) == []


@pytest.mark.fault("L07")
@pytest.mark.slow
def test_eight_clients_with_large_uploads(real_site, spool):
    assert_large_uploads_are_bounded(real_site, spool, 8, 10)


def break_off(site, data):
    """Send half of a request and leave."""
    with socket.create_connection(("127.0.0.1", site.port)) as connection:
        body = form(data)
        head = f"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['Content-Type']}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])


def soak(site, num_requests, first=0):
    """Ask one after the other: pictures, a fifth of them broken, and every twentieth time a client that leaves."""
    statuses = set()
    for number in range(first, first + num_requests):
        data = BAD[number // 5 % len(BAD)] if number % 5 == 0 else PICTURES[number % len(PICTURES)]
        if number % 20 == 19:
            break_off(site, data)
        else:
            statuses.add(site.predict(data).status)
    return statuses


def assert_no_growth(site, num_warming, num_requests):
    """Soak, and hold what the site holds at the end against what it held after warming up."""
    soak(site, num_warming)
    before = site.usage()
    statuses = soak(site, num_requests)
    time.sleep(1.5)  # the last broken connections are found and closed once a second
    after = site.usage()
    growth = (after.rss - before.rss) / num_requests
    print(
        f"{num_requests} requests: memory {before.rss / 1e6:.1f} -> {after.rss / 1e6:.1f} MB, {growth:.0f} bytes each"
    )
    assert statuses == {200, 415, 422}
    assert growth < MAX_GROWTH_PER_REQUEST
    assert abs(after.num_files - before.num_files) <= 5
    assert abs(after.num_threads - before.num_threads) <= 2


@pytest.mark.fault("L08", "H15")
def test_memory_files_and_threads_do_not_grow(site):
    assert_no_growth(site, 100, 200)


@pytest.mark.fault("L07")
def test_large_uploads_stay_in_bounded_memory_and_off_the_disk(site, spool):
    assert_large_uploads_are_bounded(site, spool, 4, 1)


PLANTED = f"""
kept, last, real = [], [None], cxr.site.service.explain
def explain(predictor, picture, **options):  # keeps something of each request, and answers for the one before
    kept.append(b"x" * {LEAK_BYTES})
    last[0], before = picture, last[0]
    return real(predictor, picture if before is None else before, **options)
cxr.site.service.explain = explain
"""


@pytest.mark.fault("L10", "L12")
def test_mutation_a_planted_leak_and_a_planted_mix_up_are_noticed(alone):
    with start_stand_in(PLANTED) as site:
        site.wait_until_ready()
        with pytest.raises(AssertionError):
            assert_own_results(drive(site, PICTURES, 2, num_requests=4), alone)
        with pytest.raises(AssertionError, match=f"< {MAX_GROWTH_PER_REQUEST}"):
            assert_no_growth(site, 100, 200)


@pytest.mark.fault("L08")
@pytest.mark.slow
def test_half_an_hour_of_everything(real_site, spool):
    site, minutes = real_site, float(os.environ.get("CXR_SOAK_MINUTES", "30"))
    end, marks, statuses = time.monotonic() + 60 * minutes, [], set()

    def client():
        first = 0
        while time.monotonic() < end:
            statuses.update(soak(site, 20, first))
            first += 20

    clients = [threading.Thread(target=client) for _ in range(4)]
    for thread in clients:
        thread.start()
    while time.monotonic() < end:
        time.sleep(5)
        marks.append(site.usage())
    for thread in clients:
        thread.join()
    time.sleep(1.5)
    warm, last = marks[len(marks) // 6], site.usage()
    print(f"{minutes:g} minutes: memory {warm.rss / 1e6:.1f} -> {last.rss / 1e6:.1f} MB")
    print(f"files {warm.num_files} -> {last.num_files}, threads {warm.num_threads} -> {last.num_threads}")
    print(f"requests: {site.messages().count('/api/predict')}")
    assert statuses == {200, 415, 422}
    assert last.rss - warm.rss <= 50_000_000
    assert "Traceback" not in site.messages()
    assert list(spool.rglob("*")) == []


def decode_bad_files(num_rounds):
    """Decode every bad file again and again in this process; return the growth in bytes after the first rounds."""

    def rss():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def decode_all():
        for data in BAD:
            with contextlib.suppress(ImageError):
                decode_radiograph(data)

    for _ in range(5):
        decode_all()
    before = rss()
    for _ in range(num_rounds):
        decode_all()
    return rss() - before


@pytest.mark.fault("L09")
def test_bad_files_leave_nothing_behind():
    assert decode_bad_files(20) <= 20_000_000


@pytest.mark.fault("L09")
@pytest.mark.slow
def test_ten_thousand_bad_files_leave_nothing_behind():
    growth = decode_bad_files(10_000 // len(BAD) + 1)
    print(f"{(10_000 // len(BAD) + 1) * len(BAD)} bad files: memory grew by {growth / 1e6:.1f} MB")
    assert growth <= 20_000_000


@pytest.mark.fault("L10")
@pytest.mark.slow
def test_sixteen_clients_never_get_anothers_answer(real_site):
    alone = answers_alone(real_site)
    answers = drive(real_site, PICTURES, 16, num_requests=200)
    num_answered = sum(answer.status == 200 for answer in answers)
    print(f"{len(answers)} requests, {num_answered} answered, the others refused as busy")
    assert {answer.status for answer in answers} <= {200, 503}
    assert num_answered > 1000
    assert_own_results(answers, alone)


@pytest.mark.fault("L11")
def test_the_site_listens_before_the_model_is_there_and_says_so():
    wait = "load = cxr.site.model_slot.ModelSlot.__init__.__kwdefaults__\n"
    wait += "load['load'] = lambda *_: (time.sleep(3), quick_site.StandIn())[1]"
    with start_stand_in("import time\n" + wait) as site:
        assert site.ask("GET", "/healthz")[0] == 200
        status, headers, body = site.ask("GET", "/readyz")
        assert (status, json.loads(body)["code"]) == (503, "model_loading")
        assert int(headers["Retry-After"]) > 0
        assert site.predict(PICTURES[0]).document["code"] == "model_loading"
        site.wait_until_ready()
        assert site.predict(PICTURES[0]).status == 200


@pytest.mark.fault("L04")
def test_the_harness_tells_a_broken_connection_from_an_answer():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = object.__new__(RunningSite)
        site.port = listener.getsockname()[1]

        def hang_up():
            connection, _ = listener.accept()
            connection.recv(10)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert site.predict(b"x").status == 0
        thread.join()
