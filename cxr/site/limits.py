"""Which requests are refused for where they come from, and how their errors are written. Plain functions of headers."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
PROGRAM_PATHS = ("/api/", "/healthz", "/readyz")


def host_is_trusted(host: str | None, trusted: Collection[str] | None) -> bool:
    """Say whether a request names one of the site's own hosts in its header Host.

    Another name means that a page of another site made the browser believe that this one is its own (DNS rebinding).
    Werkzeug's own check knows no IPv6 addresses.

    Args:
        host: the header, None where it is missing.
        trusted: names without port, IPv6 addresses in brackets; None for any.
    """
    found = HOST.fullmatch((host or "").lower())
    return trusted is None or (found is not None and found[1] in trusted)


def sent_by_another_site(fetch_site: str | None, origin: str | None, host: str) -> bool:
    """Say whether a browser sent the request for a page of another site (Fetch Metadata, W3C; Origin, RFC 6454).

    Programs such as curl send neither header and are let in: without cookies there is nothing to borrow from them.

    Args:
        fetch_site, origin: the headers Sec-Fetch-Site and Origin, None where they are missing.
        host: host and port that the request is addressed to.
    """
    if fetch_site is not None:
        return fetch_site not in ("same-origin", "none")
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()


def wants_json(path: str, accepts_json: float, accepts_html: float) -> bool:
    """Say whether an error goes out as a problem document: to programs, by route or by the header Accept.

    Args:
        accepts_json, accepts_html: the qualities that the header gives them, 0 to 1.
    """
    return path.startswith(PROGRAM_PATHS) or accepts_json > accepts_html
