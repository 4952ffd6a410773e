"""Files that are either whole or not there, folders that can hold them, and the lock that keeps two runs apart."""

import contextlib
import errno
import itertools
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

TEMP_PREFIX = ".tmp-"
OWN_TEMP = re.compile(r"\.tmp-\d+-(\d+|probe)(\.\w+)?")  # a process and a number: other programs' names are not swept
LOCK_NAME = ".train.lock"
LOCK_POLL_SECONDS = 0.2
SILENT_SECONDS = 5.0  # of waiting for a lock, before it is said
WRITE_CURES = {
    errno.ENOSPC: "Make room on this disk.",
    errno.EDQUOT: "Make room: the quota of this user is used up.",
    errno.EFBIG: "Raise the limit of the file size (ulimit -f).",
    errno.ENOENT: "Its folder is not there any more; make it again.",
    errno.EROFS: "The disk is read-only; choose another folder.",
    errno.EBUSY: "Wait for it to end, or choose another folder.",
}
_temp_numbers = itertools.count()
logger = logging.getLogger(__name__)


class FolderError(OSError):
    """A file or folder that cannot be written or has no room; the text says which, why, and what to do."""

    def __str__(self) -> str:
        return str(self.args[0])


class LockedError(RuntimeError):
    """Another run holds the training lock."""


def sweep_temp_files(folder: str | os.PathLike) -> list[str]:
    """Delete the temporary files that killed runs left in `folder`; call it only while holding its lock.

    Not those in folders below: the model's folder may be anybody's, with others at work further down.
    """
    found = Path(folder).glob(f"{TEMP_PREFIX}*")
    strays = [stray for stray in found if OWN_TEMP.fullmatch(stray.name) and stray.is_file()]
    for stray in strays:
        stray.unlink(missing_ok=True)
    return [stray.name for stray in strays]


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the same folder that takes the place of `path` when the block ends without an error.

    Readers see the old file or the new one, never a part. A name of its own for every call lets threads write the same
    file, and keeps long names below the limit of the file system.

    Args:
        durable: flush to the disk first, so that a power cut leaves one of the two whole; takes some milliseconds.
    Raises:
        FolderError: the system refused to write the file.
    """
    temp = path.with_name(f"{TEMP_PREFIX}{os.getpid()}-{next(_temp_numbers)}{path.suffix}")
    try:
        yield temp
        if durable:
            _flush(temp)
        temp.replace(path)
        if durable:
            _flush_folder(path.parent)
    except OSError as error:
        unwritten = error.errno == errno.ENOENT and path.parent.is_dir()  # the block itself wrote nothing
        if unwritten or error.errno is None or error.filename not in (None, str(temp)):  # or did something else
            raise
        raise _write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the folder has gone: that has been said, or nothing was written
            temp.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError) -> FolderError:
    """Say which file could not be written, why, and what to do; the error's number stays."""
    cure = WRITE_CURES.get(error.errno, "Change the permissions of its folder, or choose another one.")
    told = FolderError(f"{path}: cannot be written ({error.strerror}). {cure}")
    told.errno, told.strerror, told.filename = error.errno, error.strerror, str(path)
    return told


def describe_error(error: OSError) -> str:
    """Say what the system refused: the path, the reason and what to do."""
    if isinstance(error, FolderError) or error.errno is None or error.filename is None:
        return str(error)
    cures = WRITE_CURES | {errno.ENOENT: "Correct the path."}
    cure = cures.get(error.errno, "Change the permissions, or choose another path.")
    return f"{os.fsdecode(error.filename)}: {error.strerror.removesuffix('.')}. {cure}"


def free_folder(path: Path) -> Path:
    """Make a new folder, numbered where there is one of that name: name, name-2, name-3, ..."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, number = path.name, 2
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            path, number = path.with_name(f"{name}-{number}"), number + 1
        else:
            return path


def free_name(path: Path) -> Path:
    """Return the first of name-2.csv, name-3.csv, ... that is not there."""
    number = 2
    while (free := path.with_stem(f"{path.stem}-{number}")).exists():
        number += 1
    return free


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    if os.name == "posix":  # other systems cannot open a folder
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def check_room(folder: Path, num_bytes: int, purpose: str) -> None:
    """Make sure that a folder's disk has room.

    Raises:
        FolderError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        message = f"{purpose} needs {_size(num_bytes)} there, {_size(free)} are free. Make room."
        raise FolderError(f"{folder}: {message}")


def _size(num_bytes: float) -> str:
    """Name a number of bytes in the largest unit of which there is at least one."""
    for unit, name in ((1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.0f} {name}"
    return f"{num_bytes:.0f} bytes"


def check_folder(folder: Path, num_bytes: int, flag: str = "") -> None:
    """Make sure, before hours of work, that a folder can be written and has room.

    Args:
        flag: of the command line, that chooses another folder.
    Raises:
        FolderError: it cannot, or has not.
    """
    probe = folder / f"{TEMP_PREFIX}{os.getpid()}-probe"
    try:
        folder.mkdir(exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        cure = f"Choose another with {flag}, change" if flag else "Change"
        message = f"{folder}: cannot be written ({error.strerror}). {cure} its permissions or make its parent folder."
        raise FolderError(message) from error
    check_room(folder, num_bytes, "training")


@contextlib.contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Hold `folder`/.train.lock; the system lets go of it when the process ends, however it ends.

    Raises:
        LockedError: another process holds it.
    """
    path = folder / LOCK_NAME
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


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`, after waiting for whoever holds it; the system lets go of it with the process.

    A wait of more than SILENT_SECONDS is logged once.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        silent_until = time.monotonic() + SILENT_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() >= silent_until:
                logger.info("Waiting for another run that is filling %s.", path.parent)
                silent_until = math.inf
            time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Make a folder where there is none, and keep other runs out of it; the system lets go of it with the process.

    Raises:
        OSError: EBUSY where another run holds it; the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":  # other systems cannot open a folder
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not _try_lock_if_any(descriptor):
            raise OSError(errno.EBUSY, "another run is writing there", str(folder))
        yield
    finally:
        os.close(descriptor)


def use(descriptor: int) -> None:
    """Mark an open file as being in use, for as long as this descriptor or a duplicate of it is open (POSIX)."""
    if os.name == "posix":
        import fcntl

        with contextlib.suppress(OSError):  # a network file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_SH)


def is_in_use(path: Path) -> bool:
    """Say whether somebody has marked a file by `use`, in this process or another one."""
    if os.name != "posix":
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        return not _try_lock_if_any(descriptor)
    finally:
        os.close(descriptor)


def _try_lock_if_any(descriptor: int) -> bool:
    try:
        return _try_lock(descriptor)
    except OSError:  # a network file system without locks
        return True


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
