"""Keep a model file that training is about to replace, where it was made from other data."""

import filecmp
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cxr.network.model_file import read_model_info
from cxr.network.model_info import ModelFileError
from cxr.system.atomic_files import replacing


def keep_previous(path: Path, data_fingerprint: str) -> Path | None:
    """Keep the file at `path` under another name unless it was made from these very data.

    A file that is no model of this project is kept too: whatever it is, these data did not make it.

    Returns: where it is kept, `<name>.previous.h5` or the first such name that is free; None where there is nothing to
        keep.
    Raises: OSError where the folder refuses.
    """
    if not path.is_file() or _fingerprint(path) == data_fingerprint:
        return None
    kept = next(name for name in _names(path) if not name.exists() or filecmp.cmp(path, name, shallow=False))
    if not kept.exists():
        try:
            os.link(path, kept)  # no room needed: the new file takes the name, not the content
        except OSError:  # a file system without links
            with replacing(kept) as temp:
                shutil.copy2(path, temp)
    return kept


def _names(path: Path) -> Iterator[Path]:
    numbers = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    return (path.with_name(f"{path.stem}.previous{number}{path.suffix}") for number in numbers)


def _fingerprint(path: Path) -> str | None:
    try:
        return read_model_info(path).data_fingerprint
    except ModelFileError:
        return None
