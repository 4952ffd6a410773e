"""Checkpoints of a training run: two generations, each one file that is either whole or not there.

Owns their form on disk; what is in a checkpoint is decided in loop.
"""

import hashlib
import io
import json
import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr.system.atomic_files import replacing, sweep_temp_files

logger = logging.getLogger(__name__)

FORMAT = b"cxr-checkpoint 1 "
SLOTS = ("checkpoint-a.npz", "checkpoint-b.npz")  # written in turn; the newer whole one is used
RESTART_HINT = "Add --fresh to start over."


class ResumeError(ValueError):
    """A checkpoint that belongs to a run with other settings or data."""


class CheckpointError(OSError):
    """Checkpoints that are there and cannot be read."""


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


def pack(checkpoint: Checkpoint) -> memoryview:
    """Return a checkpoint as bytes."""
    record = json.dumps({"generation": checkpoint.generation, "record": checkpoint.record})
    buffer = io.BytesIO()
    np.savez(buffer, __record__=np.frombuffer(record.encode(), np.uint8), **checkpoint.arrays)
    return buffer.getbuffer()


def unpack(content: bytes) -> Checkpoint:
    """Return the checkpoint that `pack` made bytes of.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile: it is damaged.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    record = json.loads(arrays.pop("__record__").tobytes())
    return Checkpoint(record["generation"], record["record"], arrays)


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the older of the two generations.

    Raises:
        OSError: the disk refuses; both older generations are then as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = pack(checkpoint)
    with replacing(folder / SLOTS[checkpoint.generation % 2]) as temp, temp.open("wb") as file:
        file.write(FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n")
        file.write(content)


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


def checkpoint_bytes(folder: Path) -> int:
    """Return how many bytes the checkpoints of an unfinished run take, which it writes over as it goes on."""
    return sum((folder / slot).stat().st_size for slot in SLOTS if (folder / slot).is_file())


def clear_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a run that is over."""
    for slot in SLOTS:
        (folder / slot).unlink(missing_ok=True)
    sweep_temp_files(folder)


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


def _read_file(path: Path) -> Checkpoint:
    """Read and verify one generation.

    Raises:
        ValueError, KeyError, zipfile.BadZipFile: it is damaged.
    """
    content = path.read_bytes()
    head, _, payload = content.partition(b"\n")
    if head != FORMAT + hashlib.sha256(payload).hexdigest().encode():
        raise ValueError("its checksum does not fit")
    return unpack(payload)
