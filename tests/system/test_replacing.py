"""Temp-then-replace: the old file or the new one, never a part, and nothing left behind."""

import threading

import pytest

from cxr.system.atomic_files import TEMP_PREFIX, replacing, sweep_temp_files


def test_the_new_content_is_there_only_when_the_block_has_ended(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with replacing(path) as temp:
        temp.write_text("ne")
        assert path.read_text() == "old"
        assert (temp.parent, temp.suffix) == (tmp_path, ".csv")
        assert temp.name.startswith(TEMP_PREFIX)
        temp.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_and_no_other(tmp_path, error, durable):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(type(error)), replacing(path, durable=durable) as temp:
        temp.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error_that_names_no_old_file_away(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path, durable=False):
        pass
    assert path.read_text() == "old"


def test_the_longest_name_that_the_file_system_takes_is_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".png")
    with replacing(path) as temp:
        temp.write_bytes(b"1")
    assert path.read_bytes() == b"1"


def test_threads_that_write_one_file_do_not_share_a_temporary_one(tmp_path):
    path, both, names = tmp_path / "a", threading.Barrier(2), []

    def write(content: str) -> None:
        with replacing(path) as temp:
            names.append(temp)
            both.wait(10)
            temp.write_text(content)
            both.wait(10)

    threads = [threading.Thread(target=write, args=(content * 1000,)) for content in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(set(names)) == 2
    assert path.read_text() in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_swept_in_each_of_its_folders(tmp_path):
    """A checkpoint's temporary file has 112 MB, and would stay for as long as the run is resumed."""
    (tmp_path / "checkpoints").mkdir()
    strays = [tmp_path / f"{TEMP_PREFIX}1-0.h5", tmp_path / "checkpoints" / f"{TEMP_PREFIX}1-1.npz"]
    kept = tmp_path / "checkpoints" / "checkpoint-a.npz"
    for path in (*strays, kept):
        path.write_bytes(b"1")
    for stray in strays:
        assert sweep_temp_files(stray.parent) == [stray.name]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept]
