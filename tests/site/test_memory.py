"""Nothing large of a request stays until a garbage collection: reference cycles hold small things only."""

import gc
import io
import sys
import tracemalloc

import pytest
from quick_site import ready_slot
from site_tools import FORM, form, noisy_png, shared_decoder

import app as site

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
