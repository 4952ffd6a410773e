"""What is looked at in an HDF5 file before anything of it is read: one guard for model files and weights files.

A file from elsewhere may be a pipe, name other files, claim gigabytes, or be built to make HDF5 run for ever. Owns
these checks and how HDF5's errors become ModelFileError; what the file means is the reader's work.
"""

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import h5py

from cxr.system.file_search import SPECIAL_FILE

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HEAP_SIGNATURE = b"GCOL\1\0\0\0"  # of a global heap collection: name, version, reserved bytes
HEAP_OBJECT_HEADER = 16  # bytes, of a heap's objects and of the heap itself
MAX_FILE_BYTES = 1_000_000_000  # DenseNet121 in double precision with an optimiser's two copies has 170 MB
MAX_DATA_BYTES = 1_000_000_000  # that all data sets together may claim
MAX_ARRAY_BYTES = 200_000_000  # of one data set; a head of ImageNet's 21,841 classes has 90 MB
MAX_ATTRIBUTE_BYTES = 16_000_000  # all of them together; DenseNet121's configuration has 0.2 MB
MAX_TEXTS_BYTES = 1_000_000_000  # names of variable length: their number times the longest text of the file
MAX_LINKS = 50_000  # DenseNet121 with an optimiser has 4,000
# What h5py, json and Keras were seen to raise on damaged files.
READ_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError)
NO_MEMORY = ("allocation failed", "allocate", "bad_alloc", "bad allocation")  # in the texts of HDF5 and TensorFlow


class ModelFileError(ValueError):
    """A model or weights file that is missing, damaged, or does not fit."""


class MemoryShortError(OSError):
    """There is too little memory to read a model or weights file that may be whole."""


@contextlib.contextmanager
def open_guarded(path: Path, what: str, cure: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading after checking its form and everything that it claims.

    Args:
        what: such as "model file", for messages.
        cure: a sentence that says what to do about a file that cannot be used.
    Raises:
        ModelFileError: it is missing, no regular file, no HDF5, damaged, too large, reaches outside itself, or what the
            block reads of it fails.
        MemoryShortError: there is no memory for it.
    """
    check_start(path, what, cure)
    with told_errors(path, f"not readable as a {what}", cure):
        longest = _check_heaps(path)
        with h5py.File(path, "r") as file:
            _check_claims(file, longest)
            yield file


@contextlib.contextmanager
def told_errors(path: Path, failed: str, cure: str) -> Iterator[None]:
    """Turn what libraries raise on a file into a ModelFileError, or a MemoryShortError where the file is not to blame.

    Args:
        failed: what did not work, in words.
    Raises:
        ModelFileError, MemoryShortError.
    """
    try:
        yield
    except (ModelFileError, MemoryShortError):
        raise
    except (MemoryError, *READ_ERRORS) as error:
        if isinstance(error, MemoryError) or any(text in str(error) for text in NO_MEMORY):
            raise MemoryShortError(
                f"{path}: not enough memory to read this file, which may be whole. Close other programs, or raise the "
                "limit (ulimit -v)."
            ) from error
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise ModelFileError(f"{path}: {failed} ({reason}). {cure}") from error


def check_start(path: Path, what: str, cure: str) -> None:
    """Tell a missing, special, empty or foreign file apart before HDF5 sees it; a pipe is never opened.

    Raises:
        ModelFileError: with what was found.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else SPECIAL_FILE
            raise ModelFileError(f"{path}: cannot be read: expected an HDF5 {what}, found {kind}. {cure}")
        with path.open("rb") as file:
            start = file.read(len(HDF5_SIGNATURE))
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such {what}. {cure}") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}.") from error
    if start != HDF5_SIGNATURE:
        kind = "an empty file" if not start else f"a file that starts with {start!r}"
        raise ModelFileError(f"{path}: expected an HDF5 {what}, found {kind}. {cure}")
    if status.st_size > MAX_FILE_BYTES:
        raise ModelFileError(f"{path}: has {status.st_size:,} bytes; expected at most {MAX_FILE_BYTES:,}. {cure}")


def _check_heaps(path: Path) -> int:
    """Walk the file's global heaps, which hold the texts of its attributes, before HDF5 does.

    HDF5 adds up the sizes that stand in a heap without a check (H5HG, version 1.14.6): one flipped bit has it turn
    back and read the same objects for ever. The layout is that of the HDF5 File Format Specification, III.E.

    Returns: the size of the largest object, in bytes.
    """
    data, longest, total = path.read_bytes(), 0, 0
    start = data.find(HEAP_SIGNATURE)
    while start >= 0:
        end = start + int.from_bytes(data[start + 8 : start + 16], "little")
        total += end - start
        position = start + HEAP_OBJECT_HEADER
        while position + HEAP_OBJECT_HEADER <= end <= len(data):
            size = int.from_bytes(data[position + 8 : position + 16], "little")
            is_free_space = data[position : position + 2] == b"\0\0"  # its size counts its own header
            if is_free_space and size == 0:
                break
            longest = longest if is_free_space else max(longest, size)
            position += size if is_free_space else HEAP_OBJECT_HEADER + -(-size // 8) * 8
        if not end - HEAP_OBJECT_HEADER < position <= end <= len(data):
            raise ModelFileError(
                f"{path}: damaged: the heap at byte {start} does not add up. Restore the file or train again with "
                "main_train.py."
            )
        start = data.find(HEAP_SIGNATURE, start + 8)
    if total > MAX_ATTRIBUTE_BYTES:
        raise ModelFileError(f"{path}: holds {total:,} bytes of text; expected at most {MAX_ATTRIBUTE_BYTES:,}.")
    return longest


def _check_claims(file: h5py.File, longest_text: int) -> None:
    """Look at every link, data set and attribute, without reading any of them."""
    links: list[tuple[str, object]] = []

    def keep(name: str, link: object) -> bool | None:
        links.append((name, link))
        return len(links) > MAX_LINKS or None  # True ends the visit; an exception in here would be lost in HDF5

    file.visititems_links(keep)  # follows neither soft nor external links
    if len(links) > MAX_LINKS:
        raise ModelFileError(f"{file.filename}: holds more than {MAX_LINKS:,} entries. Do not use this file.")
    num_bytes, num_data_bytes = _attribute_bytes(file, longest_text), 0
    for name, link in links:
        if not isinstance(link, h5py.HardLink):
            _refuse(file, name, "is not readable: a link to another place or file")
        node = file[name]
        if isinstance(node, h5py.Dataset):
            num_data_bytes += _claimed_bytes(node)
        num_bytes += _attribute_bytes(node, longest_text)
        if num_bytes > MAX_ATTRIBUTE_BYTES or num_data_bytes > MAX_DATA_BYTES:
            _refuse(file, name, "and what comes before it claim more bytes than any such file needs")


def _claimed_bytes(dataset: h5py.Dataset) -> int:
    """Return how many bytes a data set has when it is read."""
    if dataset.external or dataset.is_virtual:
        _refuse(dataset.file, dataset.name, "lies outside the file")
    if dataset.dtype.kind not in "biuf" or dataset.dtype.subdtype:
        _refuse(dataset.file, dataset.name, f"holds {dataset.dtype}, expected numbers;")
    chunk = dataset.dtype.itemsize
    for side in dataset.chunks or ():
        chunk *= side
    if max(dataset.nbytes, chunk) > MAX_ARRAY_BYTES:
        _refuse(dataset.file, dataset.name, f"claims more bytes than the file has: {max(dataset.nbytes, chunk):,}")
    return dataset.nbytes


def _attribute_bytes(node: h5py.Group | h5py.Dataset, longest_text: int) -> int:
    """Return how many bytes a node's attributes claim."""
    total = 0
    for key in node.attrs:
        attribute = node.attrs.get_id(key)
        count = 1
        for side in attribute.shape:
            count *= side
        if h5py.check_string_dtype(attribute.dtype) is None and attribute.dtype.kind not in "biufSU":
            _refuse(node.file, node.name, f"has an attribute of {attribute.dtype}, expected texts or numbers;")
        if attribute.dtype.kind == "O" and count * longest_text > MAX_TEXTS_BYTES:
            _refuse(node.file, node.name, f"has an attribute of {count:,} texts")
        total += count * attribute.dtype.itemsize
        if total > MAX_ATTRIBUTE_BYTES:
            _refuse(
                node.file, node.name, f"has {total:,} bytes of attributes, expected at most {MAX_ATTRIBUTE_BYTES:,};"
            )
    return total


def _refuse(file: h5py.File, name: str, what: str) -> None:
    shown = ascii(name)[1:-1][:100]
    raise ModelFileError(f"{file.filename}: {shown} {what}: outside what such a file may hold. Do not use this file.")
