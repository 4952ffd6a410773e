"""No visitor gets what belongs to another, whatever happens between the site and its decoding children."""

import os
import struct
import subprocess
import sys
import zlib
from shlex import quote

import numpy as np
import pytest
from quick_site import ready_slot
from site_tools import ROOT, SUPPORT, png, shared_decoder

import app as site
from cxr.decoding import pool as decoding_pool
from cxr.decoding.pool import Decoder, DecodingError
from cxr.imaging.radiograph import decode_with_notices

FAULTY = (sys.executable, str(SUPPORT / "faulty_worker.py"))
TRNS = b"tRNS" + b"\xff" * 8  # of eight bytes where a grey picture has two: libpng prints a warning and goes on


@pytest.fixture
def decoder():
    decoder = Decoder(1, command=FAULTY)
    yield decoder
    decoder.close()


def chatty_png(seed):
    """A picture whose decoder prints a line from native code."""
    data = png(seed)
    return data[:33] + struct.pack(">I", len(TRNS) - 4) + TRNS + struct.pack(">I", zlib.crc32(TRNS)) + data[33:]


def assert_own_pictures(decoder, seeds=range(3)):
    for seed in seeds:
        np.testing.assert_array_equal(decoder.decode(png(seed))[0], decode_with_notices(png(seed))[0])


def test_the_chatty_picture_makes_the_library_print():
    code = "import sys; from cxr.imaging.radiograph import decode_with_notices as d; d(sys.stdin.buffer.read())"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, input=chatty_png(0), capture_output=True, check=True)
    assert b"tRNS" in done.stdout + done.stderr


@pytest.mark.fault("H57")
@pytest.mark.parametrize("closed", ["2>&-", "1>&-", "0<&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors_shift_no_answer(tmp_path, closed):
    (tmp_path / "chatty.png").write_bytes(chatty_png(9))
    code = f"""
import sys; sys.path[:0] = [{str(SUPPORT)!r}]
from pathlib import Path
from cxr.decoding.pool import Decoder, DecodingError
from site_tools import png
decoder, chatty = Decoder(1), Path({str(tmp_path)!r}, "chatty.png").read_bytes()
sums = [int(decoder.decode(data)[0].sum()) for data in (png(0), chatty, png(1), chatty, chatty, png(2))]
Path({str(tmp_path)!r}, "sums").write_text(repr(sums))
"""
    (tmp_path / "script.py").write_text(code)
    command = f"exec {quote(sys.executable)} {tmp_path / 'script.py'} {closed}"
    subprocess.run(["sh", "-c", command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, timeout=120)
    expected = [int(decode_with_notices(png(seed))[0].sum()) for seed in (0, 9, 1, 9, 9, 2)]
    assert (tmp_path / "sums").read_text() == repr(expected)


@pytest.mark.fault("H57")
def test_bytes_in_the_channel_that_are_no_answer_kill_the_child(decoder):
    assert_own_pictures(decoder)
    with pytest.raises(DecodingError) as error:
        decoder.decode(b"FORGE" + png(5))
    assert error.value.code == "decode_crash"
    assert_own_pictures(decoder)


@pytest.mark.fault("H57")
def test_an_answer_with_another_number_kills_the_child(decoder):
    assert_own_pictures(decoder)
    decoder._free.queue[0].child._number += 1  # as if an answer had been lost
    assert_own_pictures(decoder, [1])  # numbers are only compared with one another
    pid = decoder._free.queue[0].child._process.pid
    with pytest.raises(DecodingError):
        decoder.decode(b"LATE" + png(3))  # answers under the number of the request before
    assert decoder._free.queue[0].child._process.pid != pid
    assert_own_pictures(decoder)


@pytest.mark.fault("H58")
@pytest.mark.parametrize("error", [MemoryError, KeyError, RuntimeError, KeyboardInterrupt, UnicodeDecodeError])
@pytest.mark.parametrize("where", ["write_message", "read_message", "unpack_answer"])
def test_an_exception_anywhere_leaves_no_child_an_answer_behind(decoder, monkeypatch, error, where):
    assert_own_pictures(decoder)
    whole = getattr(decoding_pool, where)

    def fail(*arguments):
        if where == "write_message":
            whole(*arguments)  # the question has gone out, its answer will come
        raise error(*(("utf-8", b"", 0, 1, "") if error is UnicodeDecodeError else ()))

    monkeypatch.setattr(decoding_pool, where, fail)
    with pytest.raises((error, DecodingError)):
        decoder.decode(png(7))
    monkeypatch.undo()
    assert_own_pictures(decoder)


@pytest.mark.fault("H58")
def test_a_child_that_cannot_be_started_costs_its_request_and_no_place(decoder, monkeypatch):
    assert_own_pictures(decoder)

    def refuse(*_arguments, **_options):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(decoding_pool.subprocess, "Popen", refuse)
    for _ in range(3):  # the first is answered 422 by the child that breaks, the others find none
        with pytest.raises(DecodingError) as error:
            decoder.decode(b"ABORT")
    assert error.value.code == "decode_busy"
    assert not decoder.ready()
    monkeypatch.undo()
    assert_own_pictures(decoder)
    assert decoder.ready()


@pytest.mark.fault("H59")
def test_readiness_looks_at_the_children_too():
    down = Decoder(2, command=[sys.executable, "-c", "raise SystemExit(1)"])
    try:
        client = site.create_app(ready_slot(), down).test_client()
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json["code"]) == (503, "decode_down")
        assert int(answer.headers["Retry-After"]) > 0
        assert client.get("/healthz").status_code == 200
    finally:
        down.close()
    assert site.create_app(ready_slot(), shared_decoder()).test_client().get("/readyz").status_code == 200


@pytest.mark.fault("H60")
def test_a_forked_process_has_children_of_its_own():
    code = """
import os, sys
from cxr.decoding.pool import Decoder, DecodingError
from site_tools import png
decoder = Decoder(1)
before = decoder.decode(png(1))[0].sum()
pid = os.fork()
if not pid:
    inside = decoder.decode(png(1))[0].sum() == before
    os._exit(0 if inside and decoder._free.queue[0].child._process.pid > os.getpid() else 1)
for seed in range(20):
    decoder.decode(png(seed))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{SUPPORT}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False, timeout=120)
    assert done.returncode == 0
