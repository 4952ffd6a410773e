"""Each radiograph decoded once: a uint8 array on disk per split and image size.

Every row carries a digest of its own, so that a killed build goes on where it stopped and a damaged row is decoded
again; there is no moment at which a half-written cache could pass for a whole one.
"""

import errno
import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cxr.data.labels import Split
from cxr.data.problems import NUM_LISTED, shown
from cxr.imaging.radiograph import ImageError, read_radiograph, to_model_input
from cxr.system.atomic_files import waiting_lock
from cxr.system.progress import Progress

CACHE_VERSION = 1  # raise it when decoding or resizing changes: every older cache is then built again
HEADROOM_BYTES = 64 * 2**20  # left free on the disk
BLOCK_BYTES = 128 * 2**20  # of pixels mapped at a time while decoding; more would count as this process's memory


@dataclass(frozen=True, eq=False)
class CachedSplit:
    """A split with its pixels.

    Attributes:
        model_inputs: uint8 (n, size, size, 1), memory-mapped, in the split's order.
        fingerprint: SHA-256 over findings, labels, image names and pixels.
    """

    split: Split
    model_inputs: np.ndarray
    fingerprint: str

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
        return CachedSplit(self.split.select(keep), self.model_inputs[keep], f"{self.fingerprint}, {len(rows)} rows")


def cache_split(
    split: Split, image_dir: str | os.PathLike, image_size: int, cache_dir: str | os.PathLike
) -> CachedSplit:
    """Decode a split's radiographs into its cache, or take what the cache has; memory use does not grow with the split.

    The cache belongs to the image files' names, sizes and times of change and to the image size. An older cache of the
    same split name and image size is deleted.

    Raises:
        ImageError: naming the radiographs that cannot be used.
        OSError: no space, or a folder that cannot be written.
    """
    image_dir, cache_dir = Path(image_dir), Path(cache_dir)
    cache_dir.mkdir(parents=True, exist_ok=True)
    stem = f"{split.name}-{image_size}-"
    name = stem + _files_key(split, image_dir, image_size)
    for old in cache_dir.glob(f"{stem}*.npy"):
        if not old.name.startswith(name):
            old.unlink()
    pixels_path = cache_dir / f"{name}.npy"
    with waiting_lock(cache_dir / f".{split.name}.lock"):  # several processes of one run may share the folder
        _open_array(pixels_path, (len(split.images), image_size, image_size, 1), np.uint8)
        digests = _open_array(cache_dir / f"{name}.rows.npy", (len(split.images),), np.uint64)
        _fill(split, image_dir, pixels_path, digests)
    pixels = np.lib.format.open_memmap(pixels_path, mode="r+")
    pixels.flush()
    digests.flush()
    return CachedSplit(split, pixels, _fingerprint(split, digests))


def _files_key(split: Split, image_dir: Path, image_size: int) -> str:
    """Hash what the cached pixels depend on."""
    files = []
    for image in split.images:
        try:
            status = (image_dir / image).stat()
        except OSError as error:
            raise ImageError("damaged", f"{split.name}: {shown(image)} cannot be read: {error.strerror}.") from error
        files.append((image, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(json.dumps([CACHE_VERSION, image_size, files]).encode()).hexdigest()[:16]


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


def _fill(split: Split, image_dir: Path, pixels_path: Path, digests: np.ndarray) -> None:
    """Decode every row whose pixels do not fit its digest, a block of rows at a time."""
    faults: dict[int, ImageError] = {}

    def fill_row(pixels: np.ndarray, row: int) -> None:
        if digests[row] and _digest(pixels[row]) == digests[row]:
            return
        try:
            pixels[row] = to_model_input(read_radiograph(image_dir / split.images[row]), pixels.shape[1])
        except OSError as error:
            faults[row] = ImageError("damaged", f"{error.strerror or error}")
        except ImageError as error:
            faults[row] = error
        else:
            digests[row] = _digest(pixels[row])

    progress = Progress(f"{split.name}: decoding radiographs", len(split.images))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one thread per radiograph is faster than several on one
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
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
