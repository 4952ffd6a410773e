"""Which picture files a command line names, and the names of what is written for them.

Owns folders, glob patterns and collisions; never opens a picture further than its first bytes. In a folder the content
decides what a file is, not its name; what is left out there is counted.
"""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cxr.imaging.dicom_header import holds_no_picture, is_dicom, is_directory, is_own_result
from cxr.imaging.jpeg import JPEG_SIGNATURE
from cxr.imaging.png import PNG_SIGNATURE, is_drawn
from cxr.system.terminal import visible

PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".ima"}
START_BYTES = 4096  # holds a PNG's header and the first elements of a DICOM file
MAX_NAME_BYTES = 255  # of one name, on all file systems in use

HIDDEN, OTHER, DIRECTORY = "hidden files", "files that are no PNG, JPEG or DICOM", "DICOMDIR"
PICTURELESS = "DICOM files without a picture"
DRAWN, DEAD_LINK, SPECIAL = "pictures drawn by this program", "links that lead nowhere", "pipes and devices"
OWN_RESULT = "DICOM results of this program"
PASSED_OVER = (DIRECTORY, PICTURELESS, DRAWN, OWN_RESULT)  # by patterns too


@dataclass
class FoundPictures:
    """What a command line names.

    Attributes:
        files: in the order given, each once.
        problems: one line for each path that names nothing and each folder that cannot be opened.
        left_out: why files in folders were left out -> how many.
    """

    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def describe_left_out(self) -> str:
        """Say what was left out, "" where nothing was."""
        counts = [f"{reason} ({count})" for reason, count in sorted(self.left_out.items())]
        return f"Left out: {', '.join(counts)}." if counts else ""


def find_pictures(paths: Iterable[str], exclude: Iterable[Path] = ()) -> FoundPictures:
    """Resolve files, folders (searched recursively, also through links) and glob patterns.

    A file that is named is taken whatever it is; in a folder only what is a picture by its content, or by its name, so
    that a damaged one is not passed over. Lists of DICOM files and pictures that this program drew are left out in
    folders and in patterns.

    Args:
        exclude: places of results, left out in folders and patterns, so that a second run looks at no result.
    """
    found = FoundPictures()
    excluded = frozenset(os.path.realpath(folder) for folder in exclude)
    seen: set[str] = set()
    for path in paths:
        before = found.left_out.total(), len(found.problems)
        num_matches = 0
        in_results = os.path.isdir(path) and _is_below_any(os.path.realpath(path), excluded)  # noqa: PTH112
        for match in _resolve(path, excluded, found):
            real = os.path.realpath(match)
            if match != path and _is_below_any(real, excluded):
                in_results = True
                continue
            num_matches += 1
            if real not in seen:
                seen.add(real)
                found.files.append(Path(match))
        if not num_matches and before[1] == len(found.problems):
            num_left_out = found.left_out.total() - before[0]
            found.problems.append(_nothing_at(path, num_left_out, in_results=in_results))
    return found


def _nothing_at(path: str, num_left_out: int, *, in_results: bool) -> str:
    if os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114 - Path.exists fails on loops
        return f"{visible(path)}: this link leads nowhere."
    if in_results:
        return f"{visible(path)}: results go to this folder, so no file in it was read. Choose another one for them."
    others = f" among its {num_left_out} files" if num_left_out else ""
    advice = "Give a file, a folder or a pattern like '*.png'."
    return f"{visible(path)}: no PNG, JPEG or DICOM file found{others}. {advice}"


def _resolve(path: str, excluded: frozenset[str], found: FoundPictures) -> Iterator[str]:
    """Yield the files that one path of the command line names."""
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir fails on some loops of links
        yield from _scan(path, excluded, found)
    elif os.path.exists(path):  # noqa: PTH110
        yield path
    else:
        for match in sorted(glob.glob(path, recursive=True)):  # noqa: PTH207 - may be absolute
            if os.path.isdir(match):  # noqa: PTH112
                yield from _scan(match, excluded, found)
            elif not os.path.exists(match):  # noqa: PTH110
                found.left_out[DEAD_LINK] += 1
            elif os.path.isfile(match) and (reason := _reason_to_leave_out(match)) in PASSED_OVER:  # noqa: PTH113
                found.left_out[reason] += 1
            else:
                yield match


def _scan(folder: str, excluded: frozenset[str], found: FoundPictures) -> list[str]:
    """Return the pictures below a folder, sorted by path; a folder that links lead to twice is looked at once."""
    pictures: list[str] = []
    waiting, seen = [folder], set()
    while waiting:
        here = waiting.pop()
        try:
            status = os.stat(here)  # noqa: PTH116
            with os.scandir(here) as entries:
                members = list(entries)
        except OSError as error:
            found.problems.append(f"{visible(here)}: cannot be opened: {error.strerror}.")
            continue
        if (status.st_dev, status.st_ino) in seen or os.path.realpath(here) in excluded:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in members:
            if _is_folder(entry):
                waiting.append(entry.path)
            elif reason := _reason_to_leave_out_entry(entry):
                found.left_out[reason] += 1
            else:
                pictures.append(entry.path)
    return sorted(pictures, key=lambda path: path.split(os.sep))  # noqa: PTH206 - 10,000 files


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _reason_to_leave_out_entry(entry: os.DirEntry) -> str:
    """Return why a member of a folder is no picture, "" where it is one."""
    try:
        regular = entry.is_file()
    except OSError:  # a loop of links
        regular = False
    if not regular:
        return DEAD_LINK if entry.is_symlink() else SPECIAL
    return HIDDEN if entry.name.startswith(".") else _reason_to_leave_out(entry.path)


def _reason_to_leave_out(path: str) -> str:
    """Return why a regular file is no picture, by its first bytes; "" where it is one or claims to be one."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - many files
            start = file.read(START_BYTES)
    except OSError:  # whoever decodes it says why
        return ""
    if start.startswith(PNG_SIGNATURE):
        return DRAWN if is_drawn(start) else ""
    if is_dicom(start):
        if is_own_result(start):
            return OWN_RESULT
        return DIRECTORY if is_directory(start) else PICTURELESS if holds_no_picture(start) else ""
    if start.startswith(JPEG_SIGNATURE) or os.path.splitext(path)[1].lower() in PICTURE_SUFFIXES:  # noqa: PTH122
        return ""
    return OTHER


def _is_below_any(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)


def relative_names(files: Sequence[Path]) -> list[str]:
    """Return each file's path below the folder that all of them share, with forward slashes, made visible.

    Links keep their names. No two names are equal, and none holds a character that a terminal or a table would act on.
    """
    absolute = [os.path.abspath(file) for file in files]  # noqa: PTH100 - Path.resolve fails on loops of links
    shared = os.path.commonpath([os.path.dirname(file) for file in absolute]) if absolute else ""  # noqa: PTH120
    return [visible(Path(os.path.relpath(file, shared)).as_posix()) for file in absolute]


def stem_of(name: str) -> str:
    """Return a name without the suffix of a picture; other parts behind a dot, as in a UID, belong to the name."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - text with forward slashes
    return stem if suffix.lower() in PICTURE_SUFFIXES else name


class OutputNames:
    """Hand out paths below one folder, no two of them equal, also where case does not count."""

    def __init__(self, folder: Path, marks: Mapping[str, str] | None = None) -> None:
        """Start with no name handed out.

        Args:
            marks: picture -> what tells its outputs from those that are in the folder already and must stay.
        """
        self.folder = folder
        self._marks = dict(marks or {})
        self._taken: set[str] = set()

    def claim(self, picture: str, what: str = "", suffix: str = ".png") -> Path:
        """Return a new `<folder>/<picture without suffix>[-<what>]<suffix>`; numbered where that name is taken."""
        folder, slash, stem = stem_of(picture).rpartition("/")
        if picture in self._marks:
            stem = f"{stem}~{self._marks[picture]}"
        ending, number = "-" + re.sub(r"[^\w.]+", "_", what) if what else "", 1
        name = folder + slash + _fitting(stem, f"{ending}{suffix}")
        while name.casefold() in self._taken:
            number += 1
            name = folder + slash + _fitting(stem, f"{ending}-{number}{suffix}")
        self._taken.add(name.casefold())
        return self.folder / name


def _fitting(stem: str, ending: str) -> str:
    """Join a name, its stem cut where file systems would refuse it; a digest then tells cut names apart."""
    if len(os.fsencode(stem + ending)) <= MAX_NAME_BYTES:
        return stem + ending
    digest = hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]
    room = MAX_NAME_BYTES - len(os.fsencode(f"~{digest}{ending}"))
    return f"{os.fsencode(stem)[:room].decode(errors='ignore')}~{digest}{ending}"
