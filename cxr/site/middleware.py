"""What goes round every request, whatever the site makes of it: security headers, a request number, one log line.

Plain WSGI (PEP 3333), so that it holds for error pages and static files too. `environ["cxr.record"]` is the record.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from cxr.site.request_log import RequestRecord

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
STATIC = "/static/"
VERSION_QUERY = "v="


class Envelope:
    """Wrap a WSGI application."""

    def __init__(self, application: Callable) -> None:
        self._application = application

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        record = RequestRecord(secrets.token_hex(6))
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
