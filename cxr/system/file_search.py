"""Look for listed images that are not where the CSV says: in other folders, under another spelling of the name.

Only names are compared; no file is opened and no link followed. What is found must be the only one of its kind.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".gif", ".jp2", ".webp"})
OTHER_FOLDER = "another folder"
MAX_FILES = 3_000_000  # names that are looked at; more is not a folder of radiographs


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

    A name's folders count where several files have its last part: the file with most of them in common is meant.

    Args:
        taken: files that other names mean already.
    """
    by_name = _files_by_name(image_dir)
    paths = {image: _search_one(image.replace("\\", "/"), by_name) for image in missing}
    num_meant = Counter(paths.values())
    return {
        image: Found(path, _difference(image, path))
        for image, path in paths.items()
        if path is not None and path not in taken and num_meant[path] == 1 and path != image
    }


def _files_by_name(image_dir: Path) -> dict[str, list[str]]:
    """Return last part of the name, without case and without extension -> paths below the folder."""
    by_name: dict[str, list[str]] = {}
    count = 0
    for folder, folders, files in os.walk(image_dir):
        folders[:] = [name for name in folders if not name.startswith(".")]
        prefix = os.path.relpath(folder, image_dir).replace(os.sep, "/")
        prefix = "" if prefix == "." else prefix + "/"
        for name in files:
            by_name.setdefault(name_stem(name), []).append(prefix + name)
        count += len(files)
        if count > MAX_FILES:
            break
    return by_name


def name_stem(name: str) -> str:
    """Return a file name without case and without the extension of a picture."""
    stem, extension = os.path.splitext(name.casefold())  # noqa: PTH122 - text, a million times
    return stem if extension in EXTENSIONS else name.casefold()


def _search_one(image: str, by_name: dict[str, list[str]]) -> str | None:
    """Return the one path that the name can mean, None where there is none or several are as good."""
    parts = image.split("/")
    candidates = by_name.get(name_stem(parts[-1]), [])
    ranked = sorted(((_closeness(parts, path.split("/")), path) for path in candidates), reverse=True)
    if not ranked or (len(ranked) > 1 and ranked[0][0] == ranked[1][0]):
        return None
    return ranked[0][1]


def _closeness(wanted: list[str], path: list[str]) -> tuple[int, bool, bool]:
    """Say how well a path fits: folders in common from the end, the same name, the same name but for case."""
    shared = 0
    for one, other in zip(reversed(wanted[:-1]), reversed(path[:-1]), strict=False):
        if one.casefold() != other.casefold():
            break
        shared += 1
    return shared, path[-1] == wanted[-1], path[-1].casefold() == wanted[-1].casefold()


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
