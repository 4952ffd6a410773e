"""Folders, locks and temporary files."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from cxr.system import atomic_files
from cxr.system.atomic_files import (
    FolderError,
    LockedError,
    check_folder,
    sweep_temp_files,
    training_lock,
    waiting_lock,
)


@pytest.mark.fault("T06", "T07")
def test_folder_without_room_or_permission_is_found_before_training(tmp_path):
    check_folder(tmp_path / "model", 1000)
    assert list((tmp_path / "model").iterdir()) == []
    with pytest.raises(FolderError, match=r"training needs 1000000000000 MB there, \d+ MB are free"):
        check_folder(tmp_path, 10**18)
    with pytest.raises(FolderError, match="cannot be written"):
        check_folder(tmp_path / "missing" / "model", 1000)
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match="cannot be written"):
        check_folder(tmp_path / "file", 1000)


@pytest.mark.fault("T13")
def test_second_run_is_told_who_holds_the_lock_and_a_killed_one_lets_go(tmp_path):
    code = f"""
        import sys
        from pathlib import Path
        from cxr.system.atomic_files import training_lock
        with training_lock(Path({str(tmp_path)!r})):
            print("held", flush=True)
            sys.stdin.read()  # until the test ends, however it does
    """
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=rf"process {holder.pid}\) is using"), training_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with training_lock(tmp_path):
            assert (tmp_path / ".train.lock").read_text().strip() == str(os.getpid())


@pytest.mark.fault("T66")
def test_whoever_waits_for_another_run_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(atomic_files, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(atomic_files, "LOCK_POLL_SECONDS", 0.001)
    caplog.set_level("INFO")
    polls, told = threading.Semaphore(0), f"Waiting for another run that is filling {tmp_path}."
    monkeypatch.setattr(atomic_files.time, "sleep", lambda seconds: polls.release())

    def wait():
        with waiting_lock(tmp_path / ".test.lock"):
            polls.release()

    thread = threading.Thread(target=wait)
    with waiting_lock(tmp_path / ".test.lock"):
        assert caplog.messages == []
        thread.start()
        for _ in range(5):
            assert polls.acquire(timeout=60)
    thread.join(60)
    assert caplog.messages == [told]


@pytest.mark.fault("M12")
def test_sweep_deletes_only_temporary_files(tmp_path):
    strays, others = [".tmp-1-0.h5", ".tmp-2-13.npz", ".tmp-3-probe"], ["model.h5", "notes.tmp"]
    for name in (*strays, *others):
        (tmp_path / name).touch()
    assert sorted(sweep_temp_files(tmp_path)) == strays
    assert sorted(path.name for path in tmp_path.iterdir()) == others


@pytest.mark.fault("M67")
def test_sweep_leaves_what_others_call_temporary(tmp_path):
    names = [".tmp-thesis.docx", ".tmp-2026-report.pdf", ".tmp-1", "below/.tmp-1-0.h5"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".tmp-1-1").mkdir()
    assert sweep_temp_files(tmp_path) == []
    assert all((tmp_path / name).exists() for name in names)


@pytest.mark.fault("T13")
def test_mutation_a_lock_that_locks_nothing_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "_try_lock", lambda descriptor: True)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_second_run_is_told_who_holds_the_lock_and_a_killed_one_lets_go(tmp_path)
