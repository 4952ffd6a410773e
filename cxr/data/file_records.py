"""Which content each row of the cache was decoded from, remembered so that unchanged files are not read again.

A name, a size and a time of change say nothing about content: archives and pseudonymisers set times as they like. What
no program can set is the time at which the system last touched the file's entry (ctime). A file whose entry is as it
was is taken for the same; any other is read, and its digest decides.
"""

import hashlib
import os
import time

import numpy as np

# One row: the content's digest, a seal that ties it to the pixels, and the file's entry when it was read.
RECORD = np.dtype(
    [("content", "u1", 16), ("seal", "<u8"), ("inode", "<u8"), ("size", "<u8"), ("mtime", "<i8"), ("ctime", "<i8")]
)
SETTLED_NS = 2_000_000_000  # an entry younger than this when it was read may change again within the clock's step


def digest_of(data: bytes) -> bytes:
    """Hash a file's content to 128 bits."""
    return hashlib.blake2b(data, digest_size=16).digest()


def entry_is_as_it_was(record: np.void, status: os.stat_result) -> bool:
    """Say whether the system's entry of a file is the one that was remembered."""
    entry = tuple(int(record[field]) for field in ("inode", "size", "mtime", "ctime"))
    return entry == (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def has_content(record: np.void, content: bytes) -> bool:
    return record["content"].tobytes() == content


def is_sealed(record: np.void, pixels_digest: np.uint64) -> bool:
    """Say whether these pixels were decoded from the content that is remembered.

    The parts of a row reach the disk in any order; a power cut may leave old pixels beside a new record.
    """
    return bool(pixels_digest) and record["seal"] == _seal(record["content"].tobytes(), pixels_digest)


def remember(records: np.ndarray, row: int, content: bytes, pixels_digest: np.uint64, status: os.stat_result) -> None:
    """Write one record; `status` was asked for before the content was read."""
    settled = time.time_ns() - status.st_ctime_ns > SETTLED_NS
    ctime = status.st_ctime_ns if settled else 0  # 0: read it again next time
    entry = (status.st_ino, status.st_size, status.st_mtime_ns, ctime)
    records[row] = (np.frombuffer(content, np.uint8), _seal(content, pixels_digest), *entry)


def _seal(content: bytes, pixels_digest: np.uint64) -> np.uint64:
    sealed = hashlib.blake2b(content + pixels_digest.tobytes(), digest_size=8).digest()
    return np.frombuffer(sealed, "<u8")[0]
