"""The bytes of a table: only a file is opened, whoever asks for it."""

import os
from pathlib import Path

import pytest

from cxr.data.boxes import BoxError, read_boxes
from cxr.system.csv_table import TableError, read_table


def make_pipe(folder):
    pipe = folder / "pipe.csv"
    os.mkfifo(pipe)
    return pipe


def make_link_to_device(folder):
    link = folder / "linked.csv"
    link.symlink_to("/dev/null")
    return link


@pytest.mark.fault("C97")
@pytest.mark.skipif(os.name == "nt", reason="pipes and devices as files are Unix's")
@pytest.mark.parametrize("place", [lambda _: Path("/dev/null"), make_link_to_device, make_pipe])
def test_a_table_that_is_a_device_or_a_pipe_is_named_and_never_opened(tmp_path, place):
    """Opened, a pipe waits for ever and /dev/zero takes all memory."""
    path = place(tmp_path)
    with pytest.raises(TableError, match=r"this is a pipe, socket or device, expected .* text"):
        read_table(path)
    with pytest.raises(BoxError, match=f"^{path.name}: this is a pipe, socket or device"):
        read_boxes(path)


def test_a_linked_table_is_read(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbfImage,Mass\na.png,1\n")
    (tmp_path / "link.csv").symlink_to("table.csv")
    assert read_table(tmp_path / "link.csv") == b"Image,Mass\na.png,1\n"
