"""Checkpoints of a training run: two generations, each one file that is either whole or not there.

Owns their form on disk, the lock that keeps two runs apart, and the look at the disk before a run. What is in a
checkpoint is training's matter.
"""

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr.modelfile import TEMP_PREFIX, replace_durably

logger = logging.getLogger(__name__)

FORMAT = b"cxr-checkpoint 1 "
SLOTS = ("checkpoint-a.npz", "checkpoint-b.npz")  # written in turn; the newer whole one is used
RESTART_HINT = "Add --fresh to start over."


class ResumeError(ValueError):
    """A checkpoint that belongs to a run with other settings or data."""


class CheckpointError(OSError):
    """Checkpoints that are there but cannot be read, or a folder that cannot hold them."""


class LockedError(RuntimeError):
    """Another run holds the training lock."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A moment of a training run.

    Attributes:
        generation: counts up by one with every checkpoint of a run.
        record: JSON values.
        arrays: NumPy arrays by name.
    """

    generation: int
    record: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the older of the two generations.

    Raises:
        OSError: the disk refuses; both older generations are then as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = json.dumps({"generation": checkpoint.generation, "record": checkpoint.record})
    buffer = io.BytesIO()
    np.savez(buffer, __record__=np.frombuffer(record.encode(), np.uint8), **checkpoint.arrays)
    content = buffer.getbuffer()
    path = folder / SLOTS[checkpoint.generation % 2]
    temp = folder / f"{TEMP_PREFIX}{os.getpid()}-{path.name}"
    try:
        with temp.open("wb") as file:
            file.write(FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n")
            file.write(content)
        replace_durably(temp, path)
    finally:
        temp.unlink(missing_ok=True)


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """Read the newest whole checkpoint; None where there is none.

    Raises:
        CheckpointError: there are checkpoints and none of them is whole.
    """
    found, damaged = [], []
    for slot in SLOTS:
        if (folder / slot).exists():
            try:
                found.append(_read_file(folder / slot))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                damaged.append(f"{slot} ({error})")
    if damaged and not found:
        raise CheckpointError(f"{folder}: no checkpoint can be read: {', '.join(damaged)}. {RESTART_HINT}")
    if damaged:
        logger.warning("Passing over a damaged checkpoint, %s; using the other one.", ", ".join(damaged))
    return max(found, key=lambda one: one.generation, default=None)


def clear_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run that is over."""
    for path in [folder / slot for slot in SLOTS] + list(folder.glob(f"{TEMP_PREFIX}*")):
        path.unlink(missing_ok=True)


def check_identity(stored: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to resume where settings or data differ.

    Raises:
        ResumeError: naming the keys that differ, with both values.
    """
    stored, current = json.loads(json.dumps(stored)), json.loads(json.dumps(current))
    keys = [key for key in sorted(stored | current) if stored.get(key) != current.get(key)]
    if keys:
        listed = "; ".join(f"{key}: was {stored.get(key)!s:.60}, now {current.get(key)!s:.60}" for key in keys)
        raise ResumeError(
            f"An unfinished run with other settings or data is there ({listed}). "
            f"Repeat its command to resume it. {RESTART_HINT}"
        )


def check_folder(folder: Path, num_bytes: int) -> None:
    """Make sure, before hours of work, that a folder can be written and has room.

    Raises:
        CheckpointError: it cannot, or has not.
    """
    probe = folder / f"{TEMP_PREFIX}{os.getpid()}-probe"
    try:
        folder.mkdir(exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        message = f"{folder}: cannot be written ({error.strerror}). Change its permissions or make its parent folder."
        raise CheckpointError(message) from error
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        message = f"{folder}: training needs {num_bytes / 1e6:.0f} MB there, {free / 1e6:.0f} MB are free. Make room."
        raise CheckpointError(message)


@contextlib.contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Hold `folder`/.train.lock; the system lets go of it when the process ends, however it ends.

    Raises:
        LockedError: another process holds it.
    """
    path = folder / ".train.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if not _try_lock(descriptor):
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() if hasattr(os, "pread") else "?"
            raise LockedError(
                f"Another training run (process {holder}) is using {folder}. Wait for it to end, or stop it."
            )
        os.truncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            # A byte far behind the process number, which so stays readable.
            os.lseek(descriptor, 1024, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            return False
        raise
    return True


def _read_file(path: Path) -> Checkpoint:
    """Read and verify one generation.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile: it is damaged.
    """
    content = path.read_bytes()
    head, _, payload = content.partition(b"\n")
    if head != FORMAT + hashlib.sha256(payload).hexdigest().encode():
        raise ValueError("its checksum does not fit")
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    record = json.loads(arrays.pop("__record__").tobytes())
    return Checkpoint(record["generation"], record["record"], arrays)
