"""WSGI middleware (PEP 3333): security headers, request id, one log line; holds for error pages and static files too.

`environ["cxr.record"]` is the request's record. The log line is JSON without anything of the picture: no name, no
pixel, no value of a header; the route is the rule that matched, never the path that was asked for.
"""

import hashlib
import json
import logging
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TextIO

from cxr.system.background_log import log_to

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers say Origin: null when they send a form
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
STATIC = "/static/"
STDERR = 2  # file descriptor
VERSION_QUERY = "v="

logger = logging.getLogger("cxr.requests")


@dataclass
class FileRecord:
    """What is logged of one file: its size in bytes, type, (width, height), milliseconds per stage, error code."""

    num_bytes: int
    type: str = ""
    dims: tuple[int, int] | None = None
    code: str = ""
    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage, a failing one too."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.ms[name] = round(1000 * (time.perf_counter() - start), 1)


@dataclass
class RequestRecord:
    """What is logged of one request."""

    request_id: str = field(default_factory=lambda: secrets.token_hex(6))
    start: float = field(default_factory=time.perf_counter)
    route: str | None = None
    code: str = ""
    files: list[FileRecord] = field(default_factory=list)

    def write(self, *, method: str, status: int, num_bytes: int) -> None:
        record = {
            "id": self.request_id,
            "method": method,
            "route": self.route,
            "status": status,
            "bytes": num_bytes,
            "ms": round(1000 * (time.perf_counter() - self.start), 1),
        }
        if self.code:
            record["code"] = self.code
        if self.files:
            record["files"] = [{key: value for key, value in vars(file).items() if value} for file in self.files]
        logger.info(json.dumps(record))


class Middleware:
    """Wrap a WSGI application."""

    def __init__(self, application: Callable) -> None:
        self._application = application

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        record = RequestRecord()
        environ["cxr.record"] = record

        def start(status: str, headers: list[tuple[str, str]], exc_info: tuple | None = None) -> Callable:
            added = HEADERS | {"Cache-Control": _cache_rule(environ, status), "X-Request-Id": record.request_id}
            names = {name.lower() for name in added}
            kept = [(name, value) for name, value in headers if name.lower() not in names]
            length = environ.get("CONTENT_LENGTH", "")
            record.write(
                method=environ["REQUEST_METHOD"],
                status=int(status[:3]),
                num_bytes=int(length) if length.isdecimal() else 0,
            )
            return start_response(status, [*kept, *added.items()], exc_info)

        return self._application(environ, start)


def _cache_rule(environ: dict, status: str) -> str:
    """Keep nothing of an answer; static files by their version, which changes with the content."""
    if not environ.get("PATH_INFO", "").startswith(STATIC) or status[:3] not in ("200", "304"):
        return "no-store"
    versioned = environ.get("QUERY_STRING", "").startswith(VERSION_QUERY)
    return "public, max-age=31536000, immutable" if versioned else "no-cache"


@cache
def static_path(folder: str, name: str) -> str:
    """Return the address of a static file with a version that changes with its content."""
    digest = hashlib.sha256(Path(folder, name).read_bytes()).hexdigest()
    return f"{STATIC}{name}?{VERSION_QUERY}{digest[:10]}"


def set_up_logging() -> None:
    """Log to the standard error, never waiting for its reader, and keep what libraries' warnings quote out of it."""
    log_to(STDERR, "%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line per waiting request says nothing new
    warnings.showwarning = _log_warning


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log where a warning was raised, not its text, which may quote the file."""
    logging.getLogger("py.warnings").warning("%s at %s:%d", category.__name__, Path(filename).name, lineno)
