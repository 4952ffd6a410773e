"""Decoding in child processes: the same pixels, and a fault costs one file."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from quick_site import ready_slot
from site_tools import ROOT, SUPPORT, png, quick_client, shared_decoder, upload

import app as site
from cxr.decoding.pool import Decoder, DecodingError
from cxr.imaging.limits import ImageError
from cxr.imaging.radiograph import decode_with_notices
from cxr.site.errors import ERRORS

FAULTY = (sys.executable, str(SUPPORT / "faulty_worker.py"))


@pytest.fixture
def faulty():
    decoder = Decoder(1, command=FAULTY, deadline=2.0)
    yield decoder
    decoder.close()


@pytest.mark.parametrize("shape", [(120, 100), (70, 260), (1024, 1024)])
def test_a_child_gives_the_same_pixels_notices_and_type(shape):
    data = png(1, shape)
    radiograph, notices, file_type = shared_decoder().decode(data)
    expected, expected_notices, expected_type = decode_with_notices(data)
    np.testing.assert_array_equal(radiograph, expected)
    assert (radiograph.dtype, notices, file_type) == (np.uint8, expected_notices, expected_type)


def test_a_refusal_comes_back_as_the_same_error():
    for data in (b"", b"text", png()[:200]):
        with pytest.raises(ImageError) as expected:
            decode_with_notices(data)
        with pytest.raises(ImageError) as found:
            shared_decoder().decode(data)
        assert (found.value.code, str(found.value)) == (expected.value.code, str(expected.value))


@pytest.mark.fault("I26")
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"ABORT", "decode_crash"),
        (b"HANG", "decode_time"),
        (b"MEMORY", "decode_memory"),
        (b"BUG", "decode_crash"),
        (b"EXIT", "decode_crash"),
    ],
)
def test_a_crash_a_hang_and_a_memory_bomb_cost_one_file(faulty, data, code, capfd):
    faulty.decode(png())  # the child is up: what follows is the fault alone
    start = time.monotonic()
    with pytest.raises(DecodingError) as error:
        faulty.decode(data)
    assert error.value.code == code
    assert ERRORS[code].status in (422, 503)
    assert time.monotonic() - start < 30  # far from the 60 s that the hang would take
    np.testing.assert_array_equal(faulty.decode(png(2))[0], decode_with_notices(png(2))[0])  # by a fresh child
    assert "MUSTERMANN" not in capfd.readouterr().err


@pytest.mark.fault("I26")
def test_a_fault_in_one_child_does_not_touch_the_other():
    decoder = Decoder(2, command=FAULTY, deadline=3.0)
    try:
        decoder.decode(png())
        caught = []

        def hang():
            try:
                decoder.decode(b"HANG")
            except DecodingError as error:
                caught.append(error.code)

        thread = threading.Thread(target=hang)
        thread.start()
        for seed in range(5):
            np.testing.assert_array_equal(decoder.decode(png(seed))[0], decode_with_notices(png(seed))[0])
        thread.join()
        assert caught == ["decode_time"]
    finally:
        decoder.close()


@pytest.mark.fault("I26")
def test_a_child_that_was_killed_while_idle_costs_nothing(faulty):
    faulty.decode(png())
    os.kill(faulty._free.queue[0].child._process.pid, signal.SIGKILL)
    faulty._free.queue[0].child._process.wait()
    np.testing.assert_array_equal(faulty.decode(png(3))[0], decode_with_notices(png(3))[0])


def test_no_free_child_is_said_so(faulty):
    faulty._wait = 0.1
    child = faulty._free.get()
    with pytest.raises(DecodingError, match="free"):
        faulty.decode(png())
    faulty._free.put(child)


@pytest.mark.fault("I95")
@pytest.mark.parametrize("code", ["raise SystemExit(1)", "import os; os.abort()", "print('no message of a decoder')"])
def test_a_decoder_that_does_not_start_is_not_blamed_on_the_file(code, caplog):
    decoder = Decoder(1, command=(sys.executable, "-c", code))
    try:
        for _ in range(2):
            with pytest.raises(DecodingError, match="does not start") as error:
                decoder.decode(png())
            assert error.value.code == "decode_down"
        page = upload(site.create_app(ready_slot(), decoder).test_client(), png())
        assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
        assert not decoder.ready()
    finally:
        decoder.close()


def test_what_a_library_prints_does_not_get_between_the_answers(faulty):
    for seed in (4, 5):
        np.testing.assert_array_equal(faulty.decode(b"PRINT" + png(seed))[0], decode_with_notices(png(seed))[0])


@pytest.mark.fault("I26")
def test_the_site_answers_a_broken_decoder_and_the_next_upload(faulty, caplog):
    client = site.create_app(ready_slot(), faulty).test_client()
    with caplog.at_level(logging.INFO):
        for data, status in ((b"ABORT", 422), (b"MEMORY", 422), (b"HANG", 503), (png(), 200)):
            page = upload(client, data)
            assert page.status_code == status
            assert (status == 503) == ("Retry-After" in page.headers)
    assert "decode_crash: exit status -6" in caplog.text


def test_the_child_is_a_fresh_interpreter_without_keras_and_with_bounds():
    code = "import sys, cxr.decoding.worker; sys.exit(any(m in sys.modules for m in ('keras', 'flask', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    decoder = shared_decoder()
    decoder.decode(png())
    for child in (place.child for place in decoder._free.queue):
        limits = dict(line.split("  ", 1) for line in _read(child, "limits").splitlines()[1:])
        limits = {name.strip(): value.split()[0] for name, value in limits.items()}
        if child.ready:
            assert limits["Max address space"] == str(2**30)
            assert limits["Max core file size"] == "0"
        names = {entry.split("=", 1)[0] for entry in _read(child, "environ").split("\0") if entry}
        assert not names & {"HOME", "USER", "CXR_REAL_DATA", "KERAS_BACKEND"}


def _read(child, name):
    with open(f"/proc/{child._process.pid}/{name}", encoding="utf-8") as file:  # noqa: PTH123 - a file of the kernel
        return file.read()


def test_children_end_with_their_parent():
    code = "import sys; from cxr.decoding.pool import Decoder; d = Decoder(1); "
    code += "print(d._free.queue[0].child._process.pid, flush=True)"
    command = [sys.executable, "-c", f"{code}; sys.stdin.read()"]
    parent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123
            if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                return
        time.sleep(0.1)
    pytest.fail("the child outlived its parent")


def test_quick_client_decodes_through_the_children():
    assert upload(quick_client(), png()).status_code == 200


@pytest.mark.fault("H58")
def test_a_deadline_that_runs_out_just_after_the_answer_does_not_fall_upon_the_next_request(monkeypatch):
    class LateTimer(threading.Timer):
        def cancel(self):
            if self.interval < 60:  # a picture's, not that of the child's start
                self.function()  # runs out in the moment between the answer and here
            super().cancel()

    decoder = Decoder(1, deadline=30.0)
    try:
        decoder.decode(png())
        monkeypatch.setattr(threading, "Timer", LateTimer)
        for number in range(3):
            expected = decode_with_notices(png(number)).radiograph
            np.testing.assert_array_equal(decoder.decode(png(number)).radiograph, expected)
    finally:
        decoder.close()


@pytest.mark.fault("H78")
def test_signals_to_the_whole_group_leave_the_child_to_its_parent():
    """A supervisor's SIGTERM, or the end of a terminal, reaches the child too: it still decodes what was accepted."""
    decoder = Decoder(1)
    try:
        decoder.decode(png(1))
        child = decoder._free.queue[0].child
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child._process.pid, number)
            radiograph, *_ = decoder.decode(png(2))
            np.testing.assert_array_equal(radiograph, decode_with_notices(png(2))[0])
        assert decoder._free.queue[0].child is child
    finally:
        decoder.close()
