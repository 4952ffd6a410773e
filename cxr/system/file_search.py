"""Look for listed images that are not where the CSV says: in other folders, under another spelling of the name.

Only names are compared; no file is opened and no link followed. What is found must be the only one of its kind.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".webp"})
OTHER_FOLDER = "another folder"
MAX_FILES = 3_000_000  # names that are looked at; more is not a folder of radiographs
MAX_DEPTH = 8  # parts of a name, from its end, that are compared
MAX_CANDIDATES = 4  # files of one ending that are told apart by extension and case; more are too many


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
