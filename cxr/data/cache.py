"""Each radiograph decoded once: a uint8 array on disk per split and image size.

Every row carries a digest of its own and the digest of the file that it was decoded from, so that a killed build goes
on where it stopped and a damaged row, or one whose file has another content now, is decoded again; there is no moment
at which a half-written cache could pass for a whole one.

A file's name, size and time of change say nothing about its content: archives and pseudonymisers set times as they
like. What no program can set is the time at which the system last touched the file's entry (ctime). A file whose entry
is as it was is taken for the same; any other is read, and its digest decides.

A run computes with the pixels that it was given: where files have changed while another run uses their cache, the new
pixels go into a copy of it.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cxr.data.labels import Split
from cxr.data.problems import NUM_LISTED, shown
from cxr.decoding.file_decoder import FileDecoder
from cxr.imaging.radiograph import ImageError, read_file, to_model_input
from cxr.system.atomic_files import is_in_use, replacing, use, waiting_lock
from cxr.system.progress import Progress

# One row: the content's digest, a seal that ties it to the pixels, and the file's entry when it was read.
RECORD = np.dtype(
    [("content", "u1", 16), ("seal", "<u8"), ("inode", "<u8"), ("size", "<u8"), ("mtime", "<i8"), ("ctime", "<i8")]
)
NUM_READS = 3  # of a file that changes while it is read
SETTLED_NS = 2_000_000_000  # an entry younger than this when it was read may change again within the clock's step
CACHE_VERSION = 3  # raise it when decoding or resizing changes: every older cache is then built again
HEADROOM_BYTES = 64 * 2**20  # left free on the disk
NUM_KEPT = 8  # caches of one split name: so many data sets and image sizes can be used in turn
KEPT_BYTES = 20 * 10**9  # of the caches of one split name that are not in use; NIH at 224 x 224 takes 5.6 GB
PARTS = (".npy", ".rows.npy", ".files.rows.npy")  # of one cache: pixels, their digests, the records of the files
BLOCK_BYTES = 128 * 2**20  # of pixels mapped at a time while decoding; more would count as this process's memory


def digest_of(data: bytes) -> bytes:
    """Hash a file's content to 128 bits."""
    return hashlib.blake2b(data, digest_size=16).digest()


def entry_is_as_it_was(record: np.void, status: os.stat_result) -> bool:
    """Say whether the system's entry of a file is the one that was remembered."""
    entry = tuple(int(record[field]) for field in ("inode", "size", "mtime", "ctime"))
    return entry == (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def has_content(record: np.void, content: bytes) -> bool:
    return record["content"].tobytes() == content


def is_sealed(record: np.void, pixels_digest: np.uint64) -> bool:
    """Say whether these pixels were decoded from the content that is remembered.

    The parts of a row reach the disk in any order; a power cut may leave old pixels beside a new record.
    """
    return bool(pixels_digest) and record["seal"] == _seal(record["content"].tobytes(), pixels_digest)


def remember(records: np.ndarray, row: int, content: bytes, pixels_digest: np.uint64, status: os.stat_result) -> None:
    """Write one record; `status` was asked for before the content was read."""
    settled = time.time_ns() - status.st_ctime_ns > SETTLED_NS
    ctime = status.st_ctime_ns if settled else 0  # 0: read it again next time
    entry = (status.st_ino, status.st_size, status.st_mtime_ns, ctime)
    records[row] = (np.frombuffer(content, np.uint8), _seal(content, pixels_digest), *entry)


def _seal(content: bytes, pixels_digest: np.uint64) -> np.uint64:
    sealed = hashlib.blake2b(content + pixels_digest.tobytes(), digest_size=8).digest()
    return np.frombuffer(sealed, "<u8")[0]


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """A split with its pixels.

    Attributes:
        model_inputs: uint8 (n, size, size, 1), memory-mapped, in the split's order.
        fingerprint: SHA-256 over findings, labels, image names and pixels.
        contents: uint8 (n, 16), digests of the files that the pixels were decoded from; None where there are none.
    """

    split: Split
    model_inputs: np.ndarray
    fingerprint: str
    contents: np.ndarray | None = None

    @property
    def image_size(self) -> int:
        """Side of the model inputs in pixels."""
        return self.model_inputs.shape[1]

    def __len__(self) -> int:
        return len(self.split.images)

    def select(self, rows: np.ndarray) -> "CachedSplit":
        """Return the split of the given row numbers, in rising order."""
        keep = np.zeros(len(self), bool)
        keep[rows] = True
        contents = None if self.contents is None else self.contents[keep]
        fingerprint = f"{self.fingerprint}, {len(rows)} rows"
        return CachedSplit(self.split.select(keep), self.model_inputs[keep], fingerprint, contents)


def cache_split(
    split: Split, image_dir: str | os.PathLike, image_size: int, cache_dir: str | os.PathLike
) -> CachedSplit:
    """Decode a split's radiographs into its cache, or take what the cache has; memory use does not grow with the split.

    A cache belongs to a folder, the names in it and an image size; what its rows hold is decided by the content of the
    files. The caches of the split name that were used last are kept, NUM_KEPT of them and KEPT_BYTES beside this one.

    Raises:
        ImageError: naming the radiographs that cannot be used.
        OSError: no space, or a folder that cannot be written.
    """
    image_dir, cache_dir = Path(image_dir), Path(cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    stem = cache_dir / f"{split.name}-{image_size}-{_place_key(split, image_dir, image_size)}"
    pixels_path, digests_path, records_path = (stem.with_name(stem.name + part) for part in PARTS)
    with waiting_lock(cache_dir / f".{split.name}.lock"):  # several processes of one run may share the folder
        num_images = len(split.images)
        _delete_old_caches(split.name, stem, num_images * image_size**2)
        _open_array(pixels_path, (num_images, image_size, image_size, 1), np.uint8)
        digests = _open_array(digests_path, (num_images,), np.uint64)
        records = _open_array(records_path, (num_images,), RECORD)
        if is_in_use(pixels_path) and _has_changed(split, image_dir, digests, records):
            _replace_by_copies(pixels_path, digests_path)  # the other run keeps the old ones
            digests = _open_array(digests_path, (num_images,), np.uint64)
        digests_path.touch()  # the last use
        _fill(split, image_dir, pixels_path, digests, records)
        pixels = _open_for_use(pixels_path)
        pixels.flush()
        digests.flush()
        records.flush()
    return CachedSplit(split, pixels, _fingerprint(split, digests), records["content"].copy())


def is_unchanged(cached: CachedSplit, image_dir: Path) -> bool:
    """Say whether every file still has the content that its pixels were decoded from. Raises: OSError, ImageError."""
    images = zip(cached.split.images, cached.contents, strict=True)
    return all(digest_of(read_file(image_dir / image)) == content.tobytes() for image, content in images)


def _place_key(split: Split, image_dir: Path, image_size: int) -> str:
    """Hash where the files of a cache lie; what is in them is looked at row by row."""
    place = [CACHE_VERSION, image_size, os.path.realpath(image_dir), split.images]
    return hashlib.sha256(json.dumps(place).encode()).hexdigest()[:16]


def _delete_old_caches(split_name: str, stem: Path, num_bytes: int) -> None:
    """Delete caches of a split name, the least recently used first, until the limits hold and `num_bytes` more fit."""
    folder = stem.parent
    found: dict[str, list[Path]] = {}
    for path in folder.glob(f"{split_name}-*.npy"):
        found.setdefault(path.name.split(".")[0], []).append(path)
    needed = 0 if found.pop(stem.name, None) else num_bytes + HEADROOM_BYTES
    sizes = {name: sum(path.stat().st_size for path in paths) for name, paths in found.items()}
    last_used = {name: max(path.stat().st_mtime for path in paths) for name, paths in found.items()}
    free, kept_bytes, num_kept = shutil.disk_usage(folder).free, sum(sizes.values()), len(found)
    for name in sorted(found, key=last_used.get):
        if num_kept < NUM_KEPT and kept_bytes <= KEPT_BYTES and free >= needed:
            return
        for path in found[name]:
            with contextlib.suppress(PermissionError):  # Windows, and another process is reading it
                path.unlink(missing_ok=True)
        free, kept_bytes, num_kept = free + sizes[name], kept_bytes - sizes[name], num_kept - 1


def _open_array(path: Path, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """Open an array on disk, or make one of zeros with its space reserved: writing past a full disk kills a process."""
    try:
        array = np.lib.format.open_memmap(path, mode="r+")
        if array.shape == shape and array.dtype == dtype:
            return array
        del array
    except (OSError, ValueError):  # not there, or cut short
        pass
    path.unlink(missing_ok=True)
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    free = shutil.disk_usage(path.parent).free
    if free < num_bytes + HEADROOM_BYTES:
        message = (
            f"the cache needs {num_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free. Make room, or use --image-size"
        )
        raise OSError(errno.ENOSPC, message, str(path.parent))
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _fill(split: Split, image_dir: Path, pixels_path: Path, digests: np.ndarray, records: np.ndarray) -> None:
    """Decode every row whose pixels do not fit its digest or its file, a block of rows at a time."""
    faults: dict[int, ImageError] = {}
    decoder = FileDecoder()

    def fill_row(pixels: np.ndarray, row: int) -> None:
        path = image_dir / split.images[row]
        whole = is_sealed(records[row], digests[row]) and _digest(pixels[row]) == digests[row]
        try:
            if whole and entry_is_as_it_was(records[row], path.stat()):
                return
            status, data = _read_at_rest(path)
            content = digest_of(data)
            if not (whole and has_content(records[row], content)):
                pixels[row] = to_model_input(decoder.decode(data).radiograph, pixels.shape[1])
                digests[row] = _digest(pixels[row])
            remember(records, row, content, digests[row], status)
        except OSError as error:
            faults[row] = ImageError("damaged", f"cannot be read: {error.strerror or error}")
        except ImageError as error:
            faults[row] = error

    progress = Progress(f"{split.name}: decoding radiographs", len(split.images))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one thread per radiograph is faster than several on one
    try:
        with decoder, ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in _blocks(pixels_path):
                pixels = np.lib.format.open_memmap(pixels_path, mode="r+")  # mapped anew: forgets the last block
                for done, _ in enumerate(pool.map(partial(fill_row, pixels), rows), start=rows.start + 1):
                    progress.show(done)
    finally:
        cv2.setNumThreads(threads)
    if faults:
        listed = [f"{shown(split.images[row])}: {faults[row]}" for row in sorted(faults)]
        more = f"\nand {len(listed) - NUM_LISTED} more" if len(listed) > NUM_LISTED else ""
        message = f"{split.name}: {len(listed)} of {len(split.images)} radiographs cannot be used.\n"
        raise ImageError(faults[min(faults)].code, message + "\n".join(listed[:NUM_LISTED]) + more)


def _read_at_rest(path: Path) -> tuple[os.stat_result, bytes]:
    """Read a file that is not written meanwhile: a half of the old one and a half of the new would be neither.

    Raises: OSError, ImageError damaged.
    """
    for _ in range(NUM_READS):
        before, data, after = path.stat(), read_file(path), path.stat()
        if (before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
            after.st_ino, after.st_size, after.st_mtime_ns, after.st_ctime_ns
        ):  # fmt: skip
            return before, data
    raise ImageError("damaged", "The file changes while it is read. Start again when nothing writes it any more.")


def _has_changed(split: Split, image_dir: Path, digests: np.ndarray, records: np.ndarray) -> bool:
    """Say whether a file has another content than the one that its row was decoded from, or cannot be read."""
    for image, record, digest in zip(split.images, records, digests, strict=True):
        try:
            path = image_dir / image
            if not digest or entry_is_as_it_was(record, path.stat()):
                continue
            if not has_content(record, digest_of(read_file(path))):
                return True
        except (OSError, ImageError):
            return True
    return False


def _replace_by_copies(*paths: Path) -> None:
    for path in paths:
        with replacing(path, durable=False) as temp:
            shutil.copyfile(path, temp)


def _open_for_use(pixels_path: Path) -> np.memmap:
    """Map the pixels; as long as they are mapped, `is_in_use` says so to every other process."""
    with pixels_path.open("rb+") as file:
        use(file.fileno())  # the mapping keeps a duplicate of the descriptor, and the lock with it
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return np.memmap(file, dtype, "r+", file.tell(), shape)


def _blocks(pixels_path: Path) -> list[range]:
    """Cut the rows of a cache into stretches of BLOCK_BYTES."""
    pixels = np.load(pixels_path, mmap_mode="r")
    num_rows, rows_in_block = len(pixels), max(1, BLOCK_BYTES // pixels[0].nbytes)
    return [range(start, min(start + rows_in_block, num_rows)) for start in range(0, num_rows, rows_in_block)]


def _digest(pixels: np.ndarray) -> np.uint64:
    """Hash one row to 64 bits, of which 0 stands for "not decoded yet"."""
    digest = hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=8).digest()
    return np.frombuffer(digest, np.uint64)[0] | np.uint64(1)


def _fingerprint(split: Split, digests: np.ndarray) -> str:
    sha = hashlib.sha256(json.dumps([split.findings, split.images]).encode())
    sha.update(np.ascontiguousarray(split.labels))
    sha.update(np.ascontiguousarray(digests))
    return sha.hexdigest()
