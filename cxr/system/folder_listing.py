"""Compare names with the files below a folder, without opening any of them and without being led outside."""

import os
import stat
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

    Each folder is looked at once, and none below one that is not there: names cost no system call each.
    """
    root = os.path.realpath(image_dir)
    by_folder: dict[str, list[str]] = {"": []}
    for image in images:
        by_folder.setdefault(os.path.dirname(image), []).append(image)  # noqa: PTH120 - text, 100,000 times
    listing, known = FolderListing(), {}
    for folder, members in by_folder.items():
        path = _real_folder(root, folder, known)
        if path is None:
            listing.faulty.update(dict.fromkeys(members, MISSING))
            continue
        if not _is_below(path, root):
            listing.faulty.update(dict.fromkeys(members, OUTSIDE))
            continue
        try:
            with os.scandir(path) as found:
                entries = {entry.name: entry for entry in found}
        except OSError:  # no folder, or one that may not be read
            entries = {}
        for image in members:
            # Forgotten here once seen, so that what is left over is what nobody lists.
            fault = _entry_fault(entries.pop(os.path.basename(image), None), root)  # noqa: PTH119
            if fault:
                listing.faulty[image] = fault
        listing.num_unlisted += sum(entry.is_file() and not entry.name.startswith(".") for entry in entries.values())
    return listing


def _real_folder(root: str, folder: str, known: dict[str, str | None]) -> str | None:
    """Return where a folder below the root really is, None where it is not there.

    Args:
        known: folder -> what was returned for it; filled here, so that each is looked at once.
    """
    path, so_far = root, ""
    for name in filter(None, folder.split("/")):
        so_far += "/" + name
        if so_far not in known:
            inner = f"{path}/{name}"
            try:
                is_link = stat.S_ISLNK(os.lstat(inner).st_mode)
            except (OSError, ValueError):
                known[so_far] = None
            else:
                known[so_far] = os.path.realpath(inner) if is_link else inner
        path = known[so_far]
        if path is None:
            return None
    return path


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
