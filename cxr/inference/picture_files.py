"""Which picture files a command line names, and the names of what is written for them.

Owns folders, glob patterns and collisions; never opens a picture further than its first bytes.
"""

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom"}
DICOM_MARK = slice(128, 132)  # "DICM" after the preamble (DICOM PS3.10, section 7.1)


def find_pictures(paths: Iterable[str], exclude: Path | None = None) -> tuple[list[Path], list[str]]:
    """Resolve files, folders (searched recursively) and glob patterns.

    A file that is named is taken whatever its name; in a folder, only what looks like a picture is.

    Args:
        exclude: a folder to leave out, so that a second run does not take the first one's overlays for radiographs.

    Returns:
        The files in the order given, each once, and one line for each path that names nothing.
    """
    found: dict[str, Path] = {}
    problems = []
    for path in paths:
        matches = _resolve(path)
        if exclude is not None:
            matches = [match for match in matches if not match.resolve().is_relative_to(exclude.resolve())]
        if not matches:
            problems.append(
                f"{path}: no PNG, JPEG or DICOM file found. Give a file, a folder or a pattern like '*.png'."
            )
        found |= {str(match.resolve()): match for match in matches if str(match.resolve()) not in found}
    return list(found.values()), problems


def _resolve(path: str) -> list[Path]:
    if Path(path).is_dir():
        return sorted(file for file in Path(path).rglob("*") if _looks_like_picture(file))
    if Path(path).exists():
        return [Path(path)]
    return [file for match in sorted(glob.glob(path, recursive=True)) for file in _resolve(match)]  # noqa: PTH207 - may be absolute


def _looks_like_picture(file: Path) -> bool:
    if file.name.startswith(".") or not file.is_file():
        return False
    if file.suffix.lower() in PICTURE_SUFFIXES:
        return True
    if file.suffix:
        return False
    try:  # scanners often write DICOM files without a suffix
        with file.open("rb") as handle:
            return handle.read(DICOM_MARK.stop)[DICOM_MARK] == b"DICM"
    except OSError:
        return False


def relative_names(files: Sequence[Path]) -> list[str]:
    """Return each file's path below the folder that all of them share, with forward slashes."""
    resolved = [file.resolve() for file in files]
    shared = os.path.commonpath([file.parent for file in resolved]) if resolved else ""
    return [file.relative_to(shared).as_posix() for file in resolved]


class OutputNames:
    """Hand out paths below one folder, no two of them equal, also where case does not count."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()

    def claim(self, picture: str, what: str) -> Path:
        """Return a new `<folder>/<picture without suffix>-<what>.png`; numbered where that name is taken."""
        stem = Path(picture).with_suffix("").as_posix() + "-" + re.sub(r"[^\w.]+", "_", what)
        name, number = f"{stem}.png", 1
        while name.casefold() in self._taken:
            number += 1
            name = f"{stem}-{number}.png"
        self._taken.add(name.casefold())
        return self.folder / name
