"""Own the checks of the image folder: which listed files are there, lead outside, can be decoded or are copies.

No file is opened unless it is a regular file below the folder and its pixels are asked for.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.data.labels import Split
from cxr.data.problems import ProblemList, shown

if TYPE_CHECKING:  # whoever reads no image must not wait for image libraries
    from cxr.imaging.radiograph import DecodedPicture

MISSING = "missing image"
OUTSIDE = "image outside the folder"
IRREGULAR = "no regular file"
MESSAGES = {
    MISSING: "is not in the image folder. Add the file, remove the row, or leave it out with --allow missing.",
    OUTSIDE: "leads out of the image folder through a link; it was not opened. Copy the file into the folder.",
    IRREGULAR: "is not a regular file; it was not opened. Name an image file.",
}
MAX_SKIPPED_SHARE = 0.01  # of one split's images; more missing than this is a wrong folder, not an accident


@dataclass
class FolderListing:
    """Hold what a look at the image folder found.

    Args:
        faulty: listed image name -> MISSING, OUTSIDE or IRREGULAR; a name that is not here can be read.
        num_unlisted: files in the folders that the names lead to, that no name leads to.
    """

    faulty: dict[str, str] = field(default_factory=dict)
    num_unlisted: int = 0


def list_folder(image_dir: Path, images: Iterable[str]) -> FolderListing:
    """Compare the listed names with the files below `image_dir`, without opening any of them.

    Each folder is read once, so that 100,000 names cost no system call each.
    """
    root = os.path.realpath(image_dir)
    by_folder: dict[str, list[str]] = {"": []}
    for image in images:
        by_folder.setdefault(os.path.dirname(image), []).append(image)  # noqa: PTH120 - text, 100,000 times
    listing = FolderListing()
    for folder, members in by_folder.items():
        path = os.path.realpath(Path(root, folder))
        if not _is_below(path, root):
            listing.faulty.update(dict.fromkeys(members, OUTSIDE))
            continue
        try:
            with os.scandir(path) as found:
                entries = {entry.name: entry for entry in found}
        except OSError:  # no such folder, or one that may not be read
            entries = {}
        for image in members:
            # Forgotten here once seen, so that what is left over is what nobody lists.
            fault = _entry_fault(entries.pop(os.path.basename(image), None), root)  # noqa: PTH119
            if fault:
                listing.faulty[image] = fault
        listing.num_unlisted += sum(entry.is_file() and not entry.name.startswith(".") for entry in entries.values())
    return listing


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _entry_fault(entry: os.DirEntry | None, root: str) -> str | None:
    """Say what keeps a folder entry from being read as an image file, None where nothing does."""
    if entry is None:
        return MISSING
    if entry.is_symlink():
        target = os.path.realpath(entry.path)
        if not _is_below(target, root):
            return OUTSIDE
        if not Path(target).exists():
            return MISSING
    return None if entry.is_file() else IRREGULAR


@dataclass(frozen=True)
class ImageContents:
    """Hold what reading the pixels found.

    Args:
        unreadable: image name -> why it cannot be decoded.
        digests: image name -> SHA-256 over shape and pixels.
        notices: sentence -> the images of which it is true.
    """

    unreadable: dict[str, str]
    digests: dict[str, str]
    notices: dict[str, list[str]]


def read_images(image_dir: Path, images: Iterable[str], decode: Callable[[bytes], "DecodedPicture"]) -> ImageContents:
    """Decode every image once.

    Args:
        images: names that `list_folder` found no fault with.
        decode: bytes -> picture; raises ValueError with a message for the user.
    """

    def digest(image: str) -> tuple[str, tuple[str, ...], str | None]:
        try:
            pixels, notices, _ = decode((image_dir / image).read_bytes())
        except OSError as error:
            return "", (), f"cannot be read ({error.strerror})"
        except ValueError as error:
            return "", (), str(error)
        content = repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()
        return hashlib.sha256(content).hexdigest(), notices, None

    images = list(images)
    contents = ImageContents({}, {}, {})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for image, (found, notices, reason) in zip(images, pool.map(digest, images), strict=True):
            if reason is not None:
                contents.unreadable[image] = reason
                continue
            contents.digests[image] = found
            for notice in notices:
                contents.notices.setdefault(notice, []).append(image)
    return contents


@dataclass(frozen=True)
class CheckedImages:
    """Hold the splits without the rows that were left out, and what the folder holds besides.

    Args:
        digests: image name -> SHA-256 over shape and pixels; empty where no image was read.
    """

    parts: dict[str, Split]
    num_unlisted: int = 0
    digests: dict[str, str] = field(default_factory=dict)


def check_images(
    image_dir: Path,
    parts: dict[str, Split],
    files: dict[str, str],
    problems: ProblemList,
    skip_missing: bool,
    decode: Callable[[bytes], "DecodedPicture"] | None,
) -> CheckedImages:
    """Record every listed image that is missing, leads outside or, where `decode` is given, cannot be decoded."""
    if not image_dir.is_dir() or not os.access(image_dir, os.R_OK | os.X_OK):
        found = "cannot be read" if image_dir.is_dir() else "is not a folder"
        message = f"{image_dir} {found}. Correct the path or give another with --image-dir."
        problems.fault("file", image_dir.name or str(image_dir), message)
        return CheckedImages(parts)
    names = dict.fromkeys(image for part in parts.values() for image in part.images)
    listing = list_folder(image_dir, names)
    for name, part in parts.items():
        _record_faulty(part, listing.faulty, files[name], problems, skip_missing)
    contents = ImageContents({}, {}, {})
    if decode is not None:
        contents = read_images(image_dir, (image for image in names if image not in listing.faulty), decode)
        for name, part in parts.items():
            for image, line in zip(part.images, part.lines, strict=True):
                if image in contents.unreadable:
                    message = f"{shown(image)} cannot be read: {contents.unreadable[image]}"
                    problems.fault("unreadable image", files[name], message, line)
            _warn_of_notices(part, contents.notices, files[name], problems)
    if skip_missing:
        present = {
            name: np.array([listing.faulty.get(image) != MISSING for image in part.images], bool)
            for name, part in parts.items()
        }
        parts = {name: part.select(present[name]) for name, part in parts.items()}
    return CheckedImages(parts, listing.num_unlisted, contents.digests)


def _warn_of_notices(split: Split, notices: dict[str, list[str]], file: str, problems: ProblemList) -> None:
    """Warn once of each thing that is unusual about images of a split, with their number and the first of them."""
    listed = set(split.images)
    for notice, images in notices.items():
        concerned = [image for image in images if image in listed]
        if concerned:
            count = f"{len(concerned)} of {len(split.images)} images, the first is {shown(concerned[0])}"
            problems.warning("notice", file, f"{notice} ({count})")


def _record_faulty(split: Split, faulty: dict[str, str], file: str, problems: ProblemList, skip_missing: bool) -> None:
    """Record the images of a split that are not there or must not be opened."""
    num_missing = sum(faulty.get(image) == MISSING for image in split.images)
    skip = skip_missing and num_missing <= MAX_SKIPPED_SHARE * len(split.images)
    for image, line in zip(split.images, split.lines, strict=True):
        kind = faulty.get(image)
        if kind and not (kind == MISSING and skip):
            problems.fault(kind, file, f"{shown(image)} {MESSAGES[kind]}", line)
    if num_missing and skip_missing:
        message = f"{num_missing} of {len(split.images)} images are not in the image folder"
        if skip:
            problems.warning("skipped images", file, f"{message}; their rows are left out.")
        else:
            message += f", more than the {MAX_SKIPPED_SHARE:.0%} that may be left out. Is it the right --image-dir?"
            problems.fault("skipped images", file, message)
