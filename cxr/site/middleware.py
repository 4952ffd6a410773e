"""Between server and routes: security headers, request id, one log line (WSGI middleware, PEP 3333), and how forms are
read. Holds for error pages and static files too.

`environ["cxr.record"]` is the request's record. The log line is JSON without anything of the picture: no name, no
pixel, no value of a header; the route is the rule that matched, never the path that was asked for.
"""

import hashlib
import io
import ipaddress
import json
import logging
import secrets
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, NoReturn, TextIO

from flask import Request
from werkzeug.datastructures import FileStorage, Headers, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from cxr.site.errors import MAX_FILES, SiteError
from cxr.site.limits import DEFAULT_PORTS, PREFIX, sharing_headers
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
FORM_CHUNK_BYTES = 64 * 1024

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

    def write(self, *, method: str, status: int, num_bytes: int, client: str = "") -> None:
        """Write the line; `client` is the address that the request came from."""
        record = {
            "id": self.request_id,
            "method": method,
            "route": self.route,
            "status": status,
            "bytes": num_bytes,
            "ms": round(1000 * (time.perf_counter() - self.start), 1),
        }
        with suppress(ValueError):  # none, or what a proxy wrote in its place
            record["client"] = str(ipaddress.ip_address(client))
        if self.code:
            record["code"] = self.code
        if self.files:
            record["files"] = [{key: value for key, value in vars(file).items() if value} for file in self.files]
        logger.info(json.dumps(record))


class Middleware:
    """Wrap a WSGI application.

    Args:
        num_proxies: how many proxies stand before it, each of which adds one value to each forwarded header
            (X-Forwarded-For, -Proto, -Host, -Prefix); with 0 these headers are ignored.
        allowed_origins: whose pages may read answers for programs.
    """

    def __init__(self, application: Callable, *, num_proxies: int = 0, allowed_origins: Collection[str] = ()) -> None:
        self._application = _behind_proxies(application, num_proxies) if num_proxies else application
        self._allowed_origins = allowed_origins

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        record = RequestRecord()
        environ["cxr.record"] = record
        if environ.get(
            "CONTENT_LENGTH"
        ):  # else Werkzeug looks for the end, and refuses a body of just the largest size
            environ.pop("wsgi.input_terminated", None)

        def start(status: str, headers: list[tuple[str, str]], exc_info: tuple | None = None) -> Callable:
            method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
            added = HEADERS | {"Cache-Control": _cache_rule(environ, status), "X-Request-Id": record.request_id}
            added |= sharing_headers(method, path, environ.get("HTTP_ORIGIN"), self._allowed_origins)
            names = {name.lower() for name in added}
            kept = [(name, value) for name, value in headers if name.lower() not in names]
            length = environ.get("CONTENT_LENGTH", "")
            record.write(
                method=method,
                status=int(status[:3]),
                num_bytes=int(length) if length.isdecimal() else 0,
                client=environ.get("REMOTE_ADDR", ""),
            )
            return start_response(status, [*kept, *added.items()], exc_info)

        return self._application(environ, start)


def _behind_proxies(application: Callable, number: int) -> Callable:
    """Take address, scheme, host and path of a request from what so many proxies say of it.

    A scheme or path that is none is left as it was. A proxy may have stripped the path or not.
    """

    def checked(environ: dict, start_response: Callable) -> Iterable[bytes]:
        before = environ["werkzeug.proxy_fix.orig"]
        if environ["wsgi.url_scheme"] not in DEFAULT_PORTS:
            environ["wsgi.url_scheme"] = before["wsgi.url_scheme"]
        prefix = environ.get("SCRIPT_NAME", "").rstrip("/")
        environ["SCRIPT_NAME"] = prefix = prefix if PREFIX.fullmatch(prefix) else before["SCRIPT_NAME"] or ""
        if prefix and f"{environ['PATH_INFO']}/".startswith(f"{prefix}/"):
            environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix(prefix) or "/"
        return application(environ, start_response)

    return ProxyFix(checked, x_for=number, x_proto=number, x_host=number, x_prefix=number)


def _cache_rule(environ: dict, status: str) -> str:
    """Keep nothing of an answer; static files by their version, which changes with the content."""
    if not environ.get("PATH_INFO", "").startswith(STATIC) or status[:3] not in ("200", "304"):
        return "no-store"
    versioned = environ.get("QUERY_STRING", "").startswith(VERSION_QUERY)
    return "public, max-age=31536000, immutable" if versioned else "no-cache"


class _PartDecoder(MultipartDecoder):
    """Read headers that are no UTF-8 as Latin-1, as old programs send file names; Werkzeug gives the whole form up."""

    def _parse_headers(self, data: bytes | bytearray) -> Headers:
        try:
            return super()._parse_headers(data)
        except UnicodeDecodeError:
            return super()._parse_headers(data.decode("latin-1").encode())


class _FormParser(FormDataParser):
    """Read multipart forms into memory; Werkzeug's own parser has its decoder built in.

    Raises:
        SiteError: bad_request, where a form is none; by default it would be taken for an empty one.
    """

    def _parse_multipart(
        self, stream: IO[bytes], mimetype: str, content_length: int | None, options: dict[str, str]
    ) -> tuple[IO[bytes], MultiDict[str, str], MultiDict[str, FileStorage]]:
        boundary = options.get("boundary", "")
        if not boundary or not boundary.isascii():
            _refuse_form("its header Content-Type has no usable boundary")
        decoder = _PartDecoder(boundary.encode(), self.max_form_memory_size, max_parts=self.max_form_parts)
        fields, files, size = MultiDict(), MultiDict(), 0
        while not isinstance(event := _next_event(decoder, stream), Epilogue):
            if isinstance(event, Field | File):
                part, chunks, size = event, [], 0
            elif isinstance(event, Data):
                chunks.append(event.data)
                size += len(event.data)
                if isinstance(part, Field) and size > self.max_form_memory_size:
                    raise RequestEntityTooLarge
                if not event.more_data:
                    content = b"".join(chunks)
                    if isinstance(part, Field):
                        fields.add(part.name, content.decode(errors="replace"))
                    else:
                        files.add(part.name, FileStorage(io.BytesIO(content), part.filename, part.name))
        return stream, fields, files


def _next_event(decoder: MultipartDecoder, stream: IO[bytes]) -> object:
    try:
        while isinstance(event := decoder.next_event(), NeedData):
            decoder.receive_data(stream.read(FORM_CHUNK_BYTES) or None)
    except ValueError:
        _refuse_form("it was cut short, or a part of it has no usable header Content-Disposition")
    return event


def _refuse_form(reason: str) -> NoReturn:
    raise SiteError("bad_request", f"The form cannot be read: {reason}. Open the start page and send it again.")


class InMemoryRequest(Request):
    """A request whose uploads never touch the disk."""

    form_data_parser_class = _FormParser
    max_form_parts = 2 * MAX_FILES

    @property
    def record(self) -> RequestRecord:
        return self.environ["cxr.record"]


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
