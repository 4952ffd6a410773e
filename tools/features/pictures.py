"""Grey pictures to learn features from, small and in memory: a training table's, and all below further folders.

A table names the pictures that may be seen: validation and test pictures lie in the same folder and must not be.
"""

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from cxr.data.columns import IMAGE_KEYS, column_keys
from cxr.decoding.file_decoder import FileDecoder
from cxr.imaging.limits import MIN_SIDE, ImageError
from cxr.imaging.radiograph import read_file
from cxr.inference.picture_files import find_pictures
from cxr.system.csv_table import TableError, read_table, records
from cxr.system.file_search import OUTSIDE, list_folder
from cxr.system.progress import Progress

MAX_SIDE = 320  # pixels of the longer side; a crop of a fifth of the area still has 143 for the teacher's 160
HELD_OUT_STEP = 20  # every 20th picture is held out
MAX_HELD_OUT = 128  # looked at for every progress line
UNREADABLE = "cannot be decoded"
REASONS = {"blank": "blank", "too_small": f"smaller than {MIN_SIDE} pixels", "aspect": "too long and narrow"}


class PicturesError(ValueError):
    """A table or folder without a picture that can be used; the message says what to change."""


@dataclass
class Pictures:
    """Pictures of one source.

    Attributes:
        grey: uint8 (h, w) each, at most MAX_SIDE pixels a side.
        left_out: why others were passed over -> how many.
    """

    grey: list[np.ndarray] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe(self) -> str:
        """Say how many there are, and how many were passed over why."""
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in sorted(self.left_out.items()))
        return f"{len(self.grey):,} pictures" + (f"; passed over: {reasons}" if reasons else "")


def read_table_pictures(table: Path, image_dir: Path) -> Pictures:
    """Read the pictures that a training table names, in its order.

    Raises:
        PicturesError: the table cannot be used, or none of its pictures can.
        OSError: table or folder cannot be read.
    """
    names = dict.fromkeys(listed_images(table))
    os.listdir(image_dir)  # noqa: PTH208 - a wrong folder is said as such, not as missing pictures
    faulty = {name: OUTSIDE for name in names if name.split("/")[0] in ("", "..")}  # absolute, or up
    faulty |= list_folder(image_dir, names.keys() - faulty.keys()).faulty
    found = _read([image_dir / name for name in names if name not in faulty], "decoding pictures of the table")
    found.left_out.update(faulty.values())
    if not found.grey:
        raise PicturesError(
            f"{table}: of {len(names):,} pictures named none could be used ({found.describe()}). Expected PNG, JPEG or "
            f"DICOM files below {image_dir}; correct --image-dir."
        )
    return found


def listed_images(table: Path) -> list[str]:
    """Return the image names of a table in its order. Raises: PicturesError, OSError."""
    try:
        _, header = next(rows := records(read_table(table)), (1, []))
        keys = column_keys([cell.strip() for cell in header])
        if IMAGE_KEYS[0] not in keys:
            raise PicturesError(
                f"{table}: expected a column Image in its first line, found {', '.join(header)!a:.200}."
            )
        column = keys.index(IMAGE_KEYS[0])
        return [posixpath.normpath(cells[column].strip()) for _, cells in rows if len(cells) > column]
    except TableError as error:
        place = f" line {error.line}" if error.line else ""
        raise PicturesError(f"{table}{place}: {error}") from error


def read_folder_pictures(folders: Sequence[str]) -> Pictures:
    """Read all pictures below folders, each file once.

    Raises: PicturesError where one of them holds none, or none can be used.
    """
    files = find_pictures(folders)
    if files.problems:
        raise PicturesError(f"--pictures: {files.problems[0]}")
    found = _read(files.files, "decoding further pictures")
    found.left_out.update(files.left_out)
    if not found.grey:
        raise PicturesError(
            f"--pictures {', '.join(folders)}: none of {len(files.files):,} pictures could be used "
            f"({found.describe()}). Name a folder of PNG, JPEG or DICOM files."
        )
    return found


def _read(paths: Sequence[Path], label: str) -> Pictures:
    """Decode files side by side and keep them small, in their order.

    Raises: OSError where no decoder can be started.
    """
    found, progress = Pictures(), Progress(label, len(paths))
    with FileDecoder() as decoder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def one(path: Path) -> np.ndarray | str:
            try:
                data = read_file(path)
            except (OSError, ImageError):
                return UNREADABLE
            try:
                return shrink(decoder.decode(data).radiograph)
            except ImageError as error:
                return REASONS.get(error.code, UNREADABLE)

        for done, result in enumerate(pool.map(one, paths), start=1):
            if isinstance(result, str):
                found.left_out[result] += 1
            else:
                found.grey.append(result)
            progress.show(done)
    return found


def shrink(picture: np.ndarray) -> np.ndarray:
    """Average a picture, uint8 (h, w), down to MAX_SIDE on its longer side; a smaller one stays as it is."""
    scale = MAX_SIDE / max(picture.shape)
    if scale >= 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def hold_out(*sources: Sequence[np.ndarray]) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
    """Take every 20th picture of each source out of what is learned from, at most MAX_HELD_OUT of all.

    Returns: the rest of each source, and what is held out; fewer than 20 pictures all stay.
    """
    room = MAX_HELD_OUT // max(1, sum(map(bool, sources)))
    places = [set(range(HELD_OUT_STEP - 1, len(one), HELD_OUT_STEP)[:room]) for one in sources]
    rest = [[one[k] for k in range(len(one)) if k not in taken] for one, taken in zip(sources, places, strict=True)]
    return rest, [one[k] for one, taken in zip(sources, places, strict=True) for k in sorted(taken)]


def digest_of(arrays: Iterable[np.ndarray]) -> str:
    """Return the start of a SHA-256 over shapes and contents, by which a resumed run knows its data and weights."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:16]
