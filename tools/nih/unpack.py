"""Image archives into one folder, in parallel, resized on the way if wanted; a second run does only what is missing.

An archive is another's file: only regular members whose names the label table knows are written, by that name, and
nothing else ever touches the disk.
"""

import gzip
import os
import struct
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import cv2

from cxr.imaging.radiograph import ImageError, decode_radiograph, to_model_input
from cxr.system.atomic_files import replacing
from cxr.system.progress import Progress
from tools.nih.tables import PrepareError

IHDR = slice(16, 24)  # width and height of a PNG, big-endian (PNG specification, section 11.2.1)
NUM_AHEAD = 4  # members in memory for each worker
MAX_MEMBER_BYTES = 32 * 2**20  # no radiograph of the set is near it; stops a bomb
MAX_HEADER_BYTES = 65_536  # of what stands before a member, such as a long name
CHUNK_BYTES = 1 << 20
DOWNLOAD_AGAIN = "Delete it and download it again."
PNG_FAST = [cv2.IMWRITE_PNG_COMPRESSION, 4]


def unpack_archive(path: Path, image_dir: Path, known: Collection[str], image_size: int | None = None) -> int:
    """Write the radiographs of one archive into the folder.

    Args:
        known: the image names that may be written.
        image_size: side in pixels to resize to, as the network's input is resized; None copies the files as they are.
    Returns: how many files were written; those that were there already are passed over.
    Raises:
        PrepareError: the archive is damaged, holds something else than known radiographs, or one cannot be decoded.
    """
    image_dir.mkdir(parents=True, exist_ok=True)
    num_written = 0

    def write(name: str, data: bytes) -> None:
        content = _whole(name, data) if image_size is None else _resized(name, data, image_size)
        with replacing(
            image_dir / name, durable=False
        ) as temp:  # a flush for each is slow, and a second run writes what is missing
            temp.write_bytes(content)

    progress = Progress(f"{path.name}: MB", path.stat().st_size // 1_000_000)
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one thread per radiograph is faster than several on one
    try:
        with path.open("rb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            pending: deque[Future] = deque()
            try:
                for name, data in _members(
                    file, path.name, known, lambda n, size: _is_there(image_dir / n, size, image_size)
                ):
                    pending.append(pool.submit(write, name, data))
                    num_written += 1
                    if len(pending) > NUM_AHEAD * os.cpu_count():
                        pending.popleft().result()
                    progress.show(min(file.tell() // 1_000_000, progress.total - 1))
                while pending:
                    pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
    finally:
        cv2.setNumThreads(threads)
    return num_written


def resize_pictures(paths: Sequence[Path], image_dir: Path, image_size: int) -> int:
    """Write unpacked radiographs into the folder, resized; return how many were not there yet.

    Raises: PrepareError where one cannot be decoded.
    """
    image_dir.mkdir(parents=True, exist_ok=True)

    def write(path: Path) -> bool:
        if _is_there(image_dir / path.name, 0, image_size):
            return False
        with replacing(image_dir / path.name, durable=False) as temp:
            temp.write_bytes(_resized(path.name, path.read_bytes(), image_size))
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return sum(pool.map(write, paths))


def _members(
    file, archive: str, known: Collection[str], is_there: Callable[[str, int], bool]
) -> Iterator[tuple[str, bytes]]:
    """Yield (image name, content) of the members that are not there yet, in the archive's order.

    The archive is read to its very end, where gzip's checksum and length stand: tarfile's own stream reader stops
    before them, and where a member's header is damaged.
    """
    seen: set[str] = set()
    try:
        with gzip.GzipFile(fileobj=file) as stream:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_BoundedHeader) as tar:
                for member in tar:
                    if member.isdir():
                        continue
                    name = checked_name(member, archive, known)
                    if name in seen:
                        raise PrepareError(f"{archive}: {name} is in it twice. Delete it and download it again.")
                    seen.add(name)
                    if not is_there(name, member.size):
                        yield name, tar.extractfile(member).read()
            while rest := stream.read(CHUNK_BYTES):
                if rest.strip(b"\0"):
                    raise PrepareError(f"{archive}: damaged: no member begins where one should. {DOWNLOAD_AGAIN}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the archive
            raise
        raise PrepareError(f"{archive}: damaged ({error}). {DOWNLOAD_AGAIN}") from error


class _BoundedHeader(tarfile.TarInfo):
    """A member's header; those that carry long names are read into memory, so that their size needs a limit."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in tarfile.REGULAR_TYPES and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size:,} bytes, expected at most {MAX_HEADER_BYTES:,}")
        return super()._proc_member(tar)


def checked_name(member: tarfile.TarInfo, archive: str, known: Collection[str]) -> str:
    """Return the image name under which a member may be written.

    Raises: PrepareError for links, devices, paths that lead elsewhere, and names that the label table does not hold.
    """
    path = PurePosixPath(member.name)
    parts = [part for part in path.parts if part != "."]
    harmless = member.isreg() and parts and not path.is_absolute() and parts[:-1] in ([], ["images"])
    if not harmless or parts[-1] not in known or member.size > MAX_MEMBER_BYTES:
        raise PrepareError(
            f"{archive}: member {member.name!r:.80} is not a radiograph of the label table. Expected regular files "
            "images/NAME.png; nothing of it was written. Download the archive again."
        )
    return parts[-1]


def _is_there(path: Path, num_bytes: int, image_size: int | None) -> bool:
    """Whether a file is what unpacking would write; files come whole or not at all, so that their size tells."""
    try:
        if image_size is None:
            return path.stat().st_size == num_bytes
        with path.open("rb") as file:
            head = file.read(IHDR.stop)
    except FileNotFoundError:
        return False
    return len(head) == IHDR.stop and struct.unpack(">II", head[IHDR]) == (image_size, image_size)


def _whole(name: str, data: bytes) -> bytes:
    """Return a picture's own bytes after decoding it: a changed one would stay for ever, for its size is right."""
    try:
        decode_radiograph(data)
    except ImageError as error:
        raise PrepareError(f"{name}: {error} {DOWNLOAD_AGAIN}") from error
    return data


def _resized(name: str, data: bytes, image_size: int) -> bytes:
    try:
        radiograph = decode_radiograph(data)
    except ImageError as error:
        raise PrepareError(f"{name}: {error} Download its archive again.") from error
    return cv2.imencode(".png", to_model_input(radiograph, image_size), PNG_FAST)[1].tobytes()
