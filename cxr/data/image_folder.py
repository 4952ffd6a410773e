"""Checks of the image folder: which listed files are there, lead outside, can be decoded or are copies.

No file is opened unless it is a regular file below the folder and its pixels are asked for.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.data.labels import Split
from cxr.data.problems import DataProblems, shown
from cxr.system.file_search import IRREGULAR, MISSING, OTHER_FOLDER, OUTSIDE, FolderListing, Found, list_folder, search

if TYPE_CHECKING:  # whoever reads no image must not wait for image libraries
    from cxr.imaging.radiograph import DecodedPicture

MESSAGES = {
    MISSING: "is not in the image folder. Add the file, remove the row, or leave it out with --allow missing.",
    OUTSIDE: "leads out of the image folder through a link; it was not opened. Copy the file into the folder.",
    IRREGULAR: "is not a regular file; it was not opened. Name an image file.",
}
NUM_FOLDERS_NAMED = 3  # in one message
MAX_SKIPPED_SHARE = 0.01  # of one split's images; more missing than this is a wrong folder, not an accident


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

    from cxr.imaging.radiograph import read_file  # whoever reads no image must not wait for image libraries

    def digest(image: str) -> tuple[str, tuple[str, ...], str | None]:
        try:
            pixels, notices, _ = decode(read_file(image_dir / image))
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
        found: listed name -> name of the file, where the two differ.
    """

    parts: dict[str, Split]
    num_unlisted: int = 0
    digests: dict[str, str] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)


def check_images(
    image_dir: Path,
    parts: dict[str, Split],
    files: dict[str, str],
    problems: DataProblems,
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
    found: dict[str, str] = {}
    if MISSING in listing.faulty.values():
        parts, found = _find_elsewhere(image_dir, parts, files, listing, problems)
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
    return CheckedImages(parts, listing.num_unlisted, contents.digests, found)


def _warn_of_notices(split: Split, notices: dict[str, list[str]], file: str, problems: DataProblems) -> None:
    """Warn once of each thing that is unusual about images of a split, with their number and the first of them."""
    listed = set(split.images)
    for notice, images in notices.items():
        concerned = [image for image in images if image in listed]
        if concerned:
            count = f"{len(concerned)} of {len(split.images)} images, the first is {shown(concerned[0])}"
            problems.warning("notice", file, f"{notice} ({count})")


def _find_elsewhere(
    image_dir: Path, parts: dict[str, Split], files: dict[str, str], listing: FolderListing, problems: DataProblems
) -> tuple[dict[str, Split], dict[str, str]]:
    """Give listed images that are missing the name of the one file that can be meant, and say so once per difference.

    Returns: the splits with the names of the files; listed name -> name of the file, where the two differ.
    """
    names = {image for part in parts.values() for image in part.images}
    missing = [image for image, fault in listing.faulty.items() if fault == MISSING]
    found = search(image_dir, missing, names)
    unusable = list_folder(image_dir, [one.path for one in found.values()]).faulty
    found = {image: one for image, one in found.items() if one.path not in unusable}
    for name, part in parts.items():
        by_difference: dict[str, list[str]] = {}
        for image in filter(found.__contains__, part.images):
            by_difference.setdefault(found[image].difference, []).append(image)
        for difference, images in by_difference.items():
            message = _describe_found(image_dir, images, found, difference, len(part.images))
            problems.warning("found elsewhere", files[name], message)
    names_found = {image: one.path for image, one in found.items()}
    renamed = {
        name: replace(part, images=tuple(names_found.get(image, image) for image in part.images))
        for name, part in parts.items()
    }
    return renamed, names_found


def _describe_found(
    image_dir: Path, images: Sequence[str], found: dict[str, Found], difference: str, num_images: int
) -> str:
    """Say where images were found, how that differs from the CSV, and what makes the difference go."""
    count = f"{len(images):,} of {num_images:,} images"
    example = f"{shown(images[0])} is {shown(found[images[0]].path)}"
    if difference != OTHER_FOLDER:
        return f"{count} are there under other names, which are used ({difference}): {example}. Correct the CSV."
    folders = Counter(os.path.dirname(found[image].path) for image in images)  # noqa: PTH120
    places = ", ".join(
        f"{number:,} in {Path(image_dir, folder)}" for folder, number in folders.most_common(NUM_FOLDERS_NAMED)
    )
    if len(folders) == 1 and "/" not in images[0]:
        place = Path(image_dir, next(iter(folders)))
        return f"{count} are in {place} and are read from there: give --image-dir {place}"
    more = f" and {len(folders) - NUM_FOLDERS_NAMED:,} more folders" if len(folders) > NUM_FOLDERS_NAMED else ""
    return f"{count} are in other folders than the CSV says and are read from there ({places}{more}): {example}."


def _record_faulty(split: Split, faulty: dict[str, str], file: str, problems: DataProblems, skip_missing: bool) -> None:
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
