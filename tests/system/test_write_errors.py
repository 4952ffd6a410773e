"""What cannot be written is named with its path, the reason and what to do, and leaves no part behind."""

import errno
import os
import shutil

import numpy as np
import pytest

from cxr.metrics.per_finding import Predictions
from cxr.report.gallery import make_gallery
from cxr.system.atomic_files import FolderError, check_room, describe_error, free_folder, replacing


@pytest.mark.fault("T62")
@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "Make room on this disk"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EACCES, "permissions"),
    ],
)
def test_a_write_that_fails_names_path_reason_and_cure(tmp_path, number, cure):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(FolderError) as raised, replacing(path, durable=False) as temp:
        temp.write_text("half of")
        raise OSError(number, os.strerror(number))
    message = str(raised.value)
    assert message.startswith(f"{path}: cannot be written ({os.strerror(number)}).")
    assert cure in message
    assert raised.value.errno == number
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"table.csv": "old"}


@pytest.mark.fault("T62")
def test_a_folder_that_is_gone_is_named(tmp_path):
    path = tmp_path / "gone" / "table.csv"
    with pytest.raises(FolderError, match="Its folder is not there any more"), replacing(path) as temp:
        temp.write_text("x")


@pytest.mark.fault("T62")
def test_an_error_of_another_file_is_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match="source"), replacing(tmp_path / "x") as temp:
        shutil.copy(tmp_path / "source", temp)


@pytest.mark.fault("T62")
def test_small_numbers_of_bytes_are_not_called_0_mb(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
    with pytest.raises(FolderError, match=r"the cache needs 48 kB there, 0 bytes are free"):
        check_room(tmp_path, 48_000, "the cache")


@pytest.mark.fault("T62")
def test_errors_of_the_system_are_told_with_path_reason_and_cure(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as raised:
        (tmp_path / "file" / "cache").mkdir()
    place = tmp_path / "file" / "cache"
    assert describe_error(raised.value).startswith(f"{place}: Not a directory. Change the permissions, or choose")
    with pytest.raises(FileNotFoundError) as raised:
        (tmp_path / "gone").read_bytes()
    assert describe_error(raised.value) == f"{tmp_path / 'gone'}: No such file or directory. Correct the path."
    full = OSError(errno.ENOSPC, "the cache needs 5 MB. Make room", str(tmp_path))
    assert describe_error(full) == f"{tmp_path}: the cache needs 5 MB. Make room. Make room on this disk."
    assert describe_error(FolderError("in words")) == "in words"


@pytest.mark.fault("T92")
def test_two_runs_of_one_second_write_two_reports(tmp_path):
    wanted = tmp_path / "reports" / "2026-11-26_120000"
    made = [free_folder(wanted) for _ in range(3)]
    assert [folder.name for folder in made] == [wanted.name, f"{wanted.name}-2", f"{wanted.name}-3"]
    assert all(folder.is_dir() for folder in made)


@pytest.mark.fault("T63")
def test_a_radiograph_that_vanished_is_left_out_of_the_gallery(tmp_path, caplog):
    predictions = Predictions(("gone.png",), ("p",), ("Mass",), np.ones((1, 1)), np.full((1, 1), 3.0))
    assert make_gallery([(0, 0)], [np.ones((1, 2, 2))], predictions, tmp_path, 0.5) == []
    assert "gone.png: left out of the report's pictures" in caplog.text
