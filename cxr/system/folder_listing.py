"""Compare names with the files below a folder, without opening any of them and without being led outside."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

MISSING = "missing image"
OUTSIDE = "image outside the folder"
IRREGULAR = "no regular file"


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
