"""Files below a folder: which of the listed names are there, and where those are that are not; and what is no file.

Only names are compared; no file is opened and no link leads outside. What is found elsewhere, in another folder or
under another spelling, must be the only one of its kind.
"""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

MISSING = "missing image"
OUTSIDE = "image outside the folder"
IRREGULAR = "no regular file"
SPECIAL_FILE = "a pipe, socket or device"  # opened, the first waits for ever, and the last may have no end
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".webp"})
OTHER_FOLDER = "another folder"
MAX_FILES = 3_000_000  # names that are looked at; more is not a folder of radiographs
MAX_DEPTH = 8  # parts of a name, from its end, that are compared
MAX_CANDIDATES = 4  # files of one ending that are told apart by extension and case; more are too many


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


@dataclass(frozen=True)
class Found:
    """Where a listed image is.

    Args:
        path: relative to the image folder, with "/".
        difference: in words, what is different from the name in the CSV; the same for files of one kind.
    """

    path: str
    difference: str


def search(image_dir: Path, missing: Iterable[str], taken: Collection[str]) -> dict[str, Found]:
    """Return listed name -> the one file that it can mean, for those of which there is exactly one.

    A name's folders count where several files have its last part: the file with most of them in common is meant. Where
    both have folders that the other lacks, the last part must be one that no other listed name has: of CheXpert's
    files, all called view1_frontal.jpg, another patient's is never meant.

    Args:
        taken: files that other names mean already.
    """
    missing = list(missing)
    num_listed = Counter(name_stem(image.replace("\\", "/").rpartition("/")[2]) for image in (*missing, *taken))
    depth = max((image.replace("\\", "/").count("/") + 1 for image in missing), default=1)
    index = _EndingIndex(min(depth, MAX_DEPTH))
    index.add_folder(image_dir)
    paths = {image: index.find(image.replace("\\", "/")) for image in missing}
    num_meant = Counter(paths.values())
    return {
        image: Found(path, _difference(image, path))
        for image, path in paths.items()
        if path is not None and path not in taken and num_meant[path] == 1 and path != image
        if _is_ending(image, path) or num_listed[name_stem(path.rpartition("/")[2])] == 1
    }


@dataclass
class _EndingIndex:
    """Files by the last parts of their paths, without case and without the extension of a picture.

    Args:
        depth: how many parts from the end are told apart.
        paths: of the files.
        by_ending: hash of an ending -> places in `paths` of the files that have it, None where they are too many. A
            million files in as many folders have endings in common; so each ending is looked up, and none compared.
    """

    depth: int
    paths: list[str] = field(default_factory=list)
    by_ending: dict[int, tuple[int, ...] | None] = field(default_factory=dict)

    def add_folder(self, image_dir: Path) -> None:
        """Add the files below a folder, without hidden folders."""
        root = os.fspath(image_dir)
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            prefix = folder[len(root) :].replace(os.sep, "/").strip("/")
            for name in files:
                self._add(f"{prefix}/{name}" if prefix else name)
            if len(self.paths) > MAX_FILES:
                return

    def _add(self, path: str) -> None:
        place = len(self.paths)
        self.paths.append(path)
        for ending in _endings(path, self.depth):
            known = self.by_ending.get(hash(ending), ())
            if known is not None:
                self.by_ending[hash(ending)] = (*known, place) if len(known) < MAX_CANDIDATES else None

    def find(self, image: str) -> str | None:
        """Return the one path that a name can mean, None where there is none or several are as good."""
        places: tuple[int, ...] | None = ()
        for ending in _endings(image, self.depth):
            longer = self.by_ending.get(hash(ending), ())
            if longer == ():
                break
            places = longer
        name = image.rpartition("/")[2]
        candidates = [self.paths[place] for place in places or ()]
        # A hash may lie, a name not.
        candidates = [path for path in candidates if name_stem(path.rpartition("/")[2]) == name_stem(name)]
        ranked = sorted(((_closeness(name, path.rpartition("/")[2]), path) for path in candidates), reverse=True)
        if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
            return None
        return ranked[0][1]


def _endings(path: str, depth: int) -> list[str]:
    """Return the last part of a path, the last two, and so on, without case and extension."""
    *folders, name = path.split("/")
    endings = [name_stem(name)]
    for folder in reversed(folders[max(0, len(folders) + 1 - depth) :]):
        endings.append(f"{folder.casefold()}/{endings[-1]}")
    return endings


def _is_ending(image: str, path: str) -> bool:
    """Whether the folders of one name are the last ones of the other's, or the other way round."""
    folders, real = (name.casefold().split("/")[-2::-1] for name in (image.replace("\\", "/"), path))
    return all(one == other for one, other in zip(folders, real, strict=False))


def name_stem(name: str) -> str:
    """Return a file name without case and without the extension of a picture."""
    stem, extension = os.path.splitext(name.casefold())  # noqa: PTH122 - text, a million times
    return stem if extension in EXTENSIONS else name.casefold()


def _closeness(wanted: str, name: str) -> tuple[bool, bool]:
    """Say how well a file name fits: the same, the same but for case."""
    return name == wanted, name.casefold() == wanted.casefold()


def _difference(image: str, path: str) -> str:
    """Say in words how a listed name differs from the file that was found."""
    name = image.replace("\\", "/")
    words = ["back-slashes instead of / in the CSV"] if name != image else []
    (folder, listed), (real_folder, real) = (os.path.split(one) for one in (name, path))
    extension, real_extension = (os.path.splitext(one)[1] for one in (listed, real))  # noqa: PTH122
    if extension.casefold() != real_extension.casefold():
        if extension.casefold() in EXTENSIONS:
            words.append(f"{extension} in the CSV, {real_extension or 'no extension'} in the folder")
        else:
            words.append(f"no extension in the CSV, {real_extension} in the folder")
    elif listed != real or (folder != real_folder and folder.casefold() == real_folder.casefold()):
        words.append("other upper and lower case")
    if folder.casefold() != real_folder.casefold():
        words.append(OTHER_FOLDER)
    return "; ".join(words)


def is_special(path: Path) -> bool:
    """Say whether a path is neither a file nor a folder: it must not be opened. Raises: OSError if it is not there."""
    mode = path.stat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
