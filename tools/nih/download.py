"""The twelve image archives of NIH ChestX-ray14, downloaded so that no interruption costs more than a moment.

A download grows as NAME.part and takes its name only when size and checksum are right. Addresses: the list that NIH
publishes beside the data (batch_download_zips.py). MD5: FAQ_CHESTXRAY.pdf of the same folder, question 7.
"""

import contextlib
import hashlib
import http.client
import logging
import shutil
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cxr.system.progress import Progress

logger = logging.getLogger(__name__)

BASE_URL = "https://nihcc.box.com/shared/static/"
CHUNK_BYTES = 1 << 20
STALL_SECONDS = 60  # without a byte, the connection is given up and made anew
MAX_IDLE_TRIES = 6  # in a row that brought not one byte
HEADROOM_BYTES = 1 << 30  # left free on the disk


class DownloadError(OSError):
    """An archive could not be fetched whole; what there is of it is kept for the next try."""


@dataclass(frozen=True)
class Archive:
    """One file to fetch.

    Attributes:
        num_bytes: its size.
        md5: as published by NIH; None where none is known.
    """

    name: str
    url: str
    num_bytes: int
    md5: str | None


ARCHIVES = tuple(
    Archive(f"images_{number:03d}.tar.gz", f"{BASE_URL}{key}.gz", num_bytes, md5)
    for number, (key, num_bytes, md5) in enumerate(
        (
            ("vfk49d74nhbxq3nqjg0900w5nvkorp5c", 2_008_470_987, "fe8ed0a6961412fddcbb3603c11b3698"),
            ("i28rlmbvmfjbl8p2n3ril0pptcmcu9d1", 3_952_623_504, "ab07a2d7cbe6f65ddd97b4ed7bde10bf"),
            ("f1t00wrtdk94satdfb9olcolqx20z2jp", 3_929_234_850, "2301d03bde4c246388bad3876965d574"),
            ("0aowwzs5lhjrceb3qp67ahp0rd1l1etg", 3_838_903_983, "9f1b7f5aae01b13f4bc8e2c44a4b8ef6"),
            ("v5e3goj22zr6h8tzualxfsqlqaygfbsn", 3_935_496_531, "1861f3cd0ef7734df8104f2b0309023b"),
            ("asi7ikud9jwnkrnkj99jnpfkjdes7l6l", 3_986_301_172, "456b53a8b351afd92a35bc41444c58c8"),
            ("jn1b4mw4n6lnh74ovmcjb8y48h8xj07n", 4_016_328_426, "1075121ea20a137b87f290d6a4a5965e"),
            ("tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j", 4_018_347_353, "b61f34cec3aa69f295fbb593cbd9d443"),
            ("upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj", 4_111_327_929, "442a3caa61ae9b64e61c561294d1e183"),
            ("l6nilvfa9cg3s28tqv1qc1olm3gnz54p", 4_181_556_296, "09ec81c4c31e32858ad8cf965c494b74"),
            ("hhq8fkdgvcari67vfhs7ppg2w6ni4jze", 4_187_084_020, "499aefc67207a5a97692424cf5dbeed5"),
            ("ioqwiy20ihqwyr8pf4c24eazhh281pbu", 2_914_187_733, "dc9fda1757c2de0032b63347a7d2895c"),
        ),
        start=1,
    )
)


def download_archive(archive: Archive, folder: Path, pause_seconds: float = 1.0) -> Path:
    """Fetch one archive, or go on with what an earlier run left of it.

    Args:
        pause_seconds: before the second try; doubled after each try that brings nothing.
    Raises:
        DownloadError: no room, no answer after several tries, or twice a wrong checksum.
    """
    path = folder / archive.name
    if path.exists():
        if path.stat().st_size != archive.num_bytes:
            found = f"found {path.stat().st_size:,} bytes, expected {archive.num_bytes:,}"
            raise DownloadError(f"{path}: {found}. Delete or complete the file.")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    for attempt in (1, 2):
        _fetch(archive, part, pause_seconds)
        if archive.md5 is None or _md5(part) == archive.md5:
            part.replace(path)
            return path
        part.unlink()
        if attempt == 1:
            logger.warning("%s: wrong checksum; downloading it once more.", archive.name)
    raise DownloadError(
        f"{archive.name}: twice another checksum than {archive.md5}. Is {archive.url} still NIH's file?"
    )


def _fetch(archive: Archive, part: Path, pause_seconds: float) -> None:
    """Let the part grow to its full size, over as many connections as that takes."""
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if archive.num_bytes - have + HEADROOM_BYTES > free:
        need = (archive.num_bytes - have + HEADROOM_BYTES) / 1e9
        raise DownloadError(
            f"{part.parent}: {archive.name} needs {need:.1f} GB, {free / 1e9:.1f} GB are free. Make room."
        )
    progress = Progress(f"{archive.name}: MB", archive.num_bytes // 1_000_000)
    idle_tries, reason = 0, ""
    while have != archive.num_bytes and idle_tries < MAX_IDLE_TRIES:
        if idle_tries:
            time.sleep(min(pause_seconds * 2 ** (idle_tries - 1), 60.0))
        if have > archive.num_bytes:  # of another file; a server that cannot go on in the middle must start again
            part.unlink()
        with part.open("ab") as file:
            try:
                _receive(archive, file, progress)
                reason = "the connection ended early"
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
        before, have = have, part.stat().st_size
        idle_tries = 0 if have > before else idle_tries + 1
    if have != archive.num_bytes:
        raise DownloadError(
            f"{archive.name}: {have:,} of {archive.num_bytes:,} bytes after {MAX_IDLE_TRIES} tries without progress "
            f"({reason}). They are kept; the same command goes on from there."
        )


def _receive(archive: Archive, file: BinaryIO, progress: Progress) -> None:
    """Append what one connection brings; returns where the connection ends, however that comes about."""
    start = file.tell()
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310 - addresses above
    with contextlib.closing(urllib.request.urlopen(request, timeout=STALL_SECONDS)) as answer:  # noqa: S310 - as above
        offered = _offered_bytes(answer, start)
        if offered not in (None, archive.num_bytes):
            raise DownloadError(f"the server offers {offered:,} bytes")
        if start and answer.status != http.client.PARTIAL_CONTENT:
            file.truncate(0)  # the server cannot go on in the middle
        while file.tell() <= archive.num_bytes and (chunk := answer.read1(CHUNK_BYTES)):
            file.write(chunk)
            progress.show(min(file.tell() // 1_000_000, progress.total - 1))


def _offered_bytes(answer: http.client.HTTPResponse, start: int) -> int | None:
    """Return the size of the whole file by the answer's headers, None where they do not say."""
    if answer.status == http.client.PARTIAL_CONTENT:
        span, _, total = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.split("-")[0] != str(start):
            raise DownloadError(f"asked for the bytes from {start}, received {answer.headers.get('Content-Range')}")
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()  # NIH publishes MD5
