"""What requests take of the memory: little of it stays, and few of them take it at once."""

import gc
import io
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from quick_site import StandIn, ready_slot
from site_tools import FORM, form, noisy_png, png, shared_decoder, upload

import app as site
from cxr.site.service import MAX_ADMITTED, MAX_AT_WORK

MAX_LEFT = 200_000  # bytes; each picture below has five times as many


def answer(application, path, *files):
    """Answer one upload without a test client, which keeps answers; return the status."""
    body = form(*(("x.png", one) for one in files))
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", "HTTP_HOST": "localhost",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_TYPE": FORM,
        "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
    }  # fmt: skip
    statuses = []
    chunks = application(environ, lambda status, headers, exc_info=None: statuses.append(status))
    assert len(b"".join(chunks)) > 100
    chunks.close()
    environ["wsgi.input"].close()  # as the server does
    return int(statuses[0][:3])


def bytes_left_to_the_collector(act):
    """Act without the cyclic collector; return how many bytes then only it could free."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        act()
        held = tracemalloc.get_traced_memory()[0]
        gc.collect()
        return held - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.fault("H68")
@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
@pytest.mark.parametrize("name", ["picture", "two pictures", "damaged", "one of two damaged"])
def test_uploads_and_pictures_are_freed_with_their_request(path, name):
    application = site.create_app(ready_slot(), shared_decoder())
    data = noisy_png((1000, 1000))
    files = {
        "picture": [data],
        "two pictures": [data, data],
        "damaged": [data[:-1000]],
        "one of two damaged": [data, data[:-1000]],
    }[name]
    answer(application, path, *files)  # templates are compiled, modules imported
    assert bytes_left_to_the_collector(lambda: answer(application, path, *files)) < MAX_LEFT


@pytest.mark.fault("H68")
def test_the_measure_sees_what_it_is_for():
    class Holder:
        pass

    def plant():
        holder = Holder()
        holder.itself, holder.upload = holder, io.BytesIO(bytes(10 * MAX_LEFT))

    assert bytes_left_to_the_collector(plant) > MAX_LEFT


@pytest.mark.fault("H69")
@pytest.mark.parametrize("path", ["/predict", "/api/predict"])
@pytest.mark.parametrize("stage", ["form", "model", "page"])
def test_few_requests_take_memory_at_once(monkeypatch, path, stage):
    """A form is read, a radiograph held and a page written for those at work only; all are answered in the end."""
    owner, name = {
        "form": (site, "_uploads"),
        "model": (StandIn, "predict"),
        "page": (site, "render_template" if path == "/predict" else "json_response"),
    }[stage]
    plain, lock, inside = getattr(owner, name), threading.Lock(), [0, 0]  # now, at most
    held = threading.Event()

    def counted(*args, **options):
        with lock:
            inside[0] += 1
            inside[1] = max(inside)
        held.wait(60)
        try:
            return plain(*args, **options)
        finally:
            with lock:
                inside[0] -= 1

    monkeypatch.setattr(owner, name, counted)
    application = site.create_app(ready_slot(), shared_decoder())
    with ThreadPoolExecutor(MAX_ADMITTED) as clients:
        answers = [
            clients.submit(lambda: upload(application.test_client(), png(), path=path)) for _ in range(MAX_ADMITTED)
        ]
        end = time.monotonic() + 60
        while inside[0] < MAX_AT_WORK and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.2)  # for those that would go too far
        held.set()
        assert [one.result().status_code for one in answers] == [200] * MAX_ADMITTED
    assert inside[1] == MAX_AT_WORK
