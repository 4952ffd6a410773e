"""Whoever logs never waits for whoever reads the log."""

import logging
import os

import pytest

from cxr.system.background_log import BackgroundHandler


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def record(text):
    return logging.LogRecord("name", logging.INFO, "file.py", 1, text, None, None)


def read_lines(reader, last):
    data = b""
    while not data.endswith(last + b"\n"):
        data += os.read(reader, 65536)
    return data.decode().splitlines()


@pytest.mark.fault("H54")
def test_lines_come_in_order_and_whole(pipe):
    handler = BackgroundHandler(pipe[1])
    for number in range(100):
        handler.emit(record(f"line {number} ü"))
    handler.flush()
    assert read_lines(pipe[0], "line 99 ü".encode()) == [f"line {number} ü" for number in range(100)]


@pytest.mark.fault("H54")
def test_what_nobody_reads_is_dropped_counted_and_said(pipe):
    handler = BackgroundHandler(pipe[1], max_lines=10)
    long = "x" * 60_000  # the second does not fit into a pipe
    for _ in range(3):
        handler.emit(record(long))
    for number in range(50):
        handler.emit(record(str(number)))
    seen = ""
    while "dropped" not in seen:
        seen += os.read(pipe[0], 65536).decode()
    seen = seen.split("\n")
    counted = [line for line in seen if line.endswith("lines were dropped here: nobody read the log.")]
    assert len(counted) == 1
    assert int(counted[0].split()[0]) >= 40


def test_a_closed_reader_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    handler = BackgroundHandler(writer)
    for number in range(10):
        handler.emit(record(str(number)))
    handler.flush()
    assert handler._lines.empty()
    os.close(writer)
