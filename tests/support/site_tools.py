"""What the tests of the site share: pictures, uploads, one decoder for all, and a running server."""

import atexit
import functools
import html
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from quick_site import ready_slot

import app as site
from cxr.decoding.pool import Decoder
from cxr.site.model_slot import ModelSlot

SUPPORT = Path(__file__).resolve().parent


ROOT = SUPPORT.parents[1]


BORDER = "border"


FORM = f"multipart/form-data; boundary={BORDER}"


def png(seed=0, shape=(120, 100)):
    """Return a smooth picture as PNG, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    picture = cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", picture)[1].tobytes()


def noisy_png(shape=(1500, 1500)):
    """Return a picture that hardly compresses, as PNG."""
    return cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))[1].tobytes()


def form(*files, fields=()):
    """Write a form body: files are (name, bytes), fields (name, text)."""
    body = b""
    for name, data in files:
        head = f'--{BORDER}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    for name, text in fields:
        body += f'--{BORDER}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
    return body + f"--{BORDER}--\r\n".encode()


def upload(client, *files, path="/predict", script="", headers=None):
    """Post files as a browser does; each is bytes or (name, bytes)."""
    named = [one if isinstance(one, tuple) else ("x.png", one) for one in files]
    body = form(*named, fields=[("script", script)] if script else [])
    return client.post(path, data=body, content_type=FORM, headers=headers)


def text_of(response):
    """Return the words on a page, without tags and with single blanks."""
    visible = re.sub(r"(?s)<script.*?</script>|<[^>]*>", " ", response.text)
    return " ".join(html.unescape(visible).split())


def answers_of(response):
    """Return the answers that a result page carries for its script, in page order."""
    blocks = re.findall(r'(?s)<script[^>]*type="application/json"[^>]*>(.*?)</script>', response.text)
    return [one for one in map(json.loads, blocks) if isinstance(one, dict) and "findings" in one]


@functools.cache
def shared_decoder():
    decoder = Decoder()
    atexit.register(decoder.close)
    return decoder


def quick_client(**options):
    """A client of the site around the stand-in for the model."""
    return site.create_app(ready_slot(), shared_decoder(), **options).test_client()


@contextmanager
def running_site(*arguments, script=SUPPORT / "quick_site.py", **options):
    """Run tests/support/quick_site.py; `stop(signal)` ends it and returns the exit status."""
    command = [sys.executable, str(script), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    try:
        words = process.stdout.readline().split()
        port = int(words[2].rsplit(":", 1)[1])

        def stop(number=signal.SIGTERM, timeout=60):
            process.send_signal(number)
            return process.wait(timeout)

        yield SimpleNamespace(port=port, pid=int(words[4]), process=process, stop=stop)
    finally:
        process.kill()
        process.communicate()


def ask(port, method="GET", path="/", body=None, headers=None, timeout=60):
    """Send one request; return status, headers (lower case) and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def ask_raw(port, data, timeout=30):
    """Send bytes as they are; return all that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


def site_in_state(state):
    slot = ModelSlot("x")
    slot.state = state
    return site.create_app(slot, shared_decoder()).test_client()


class Broken(RuntimeError):
    """A fault that nobody foresaw."""


def broken(*_arguments, **_more):
    raise Broken("MUSTERMANN /srv/secret")
