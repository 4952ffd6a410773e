"""Which requests are refused for where they come from, and how their errors are written. Plain functions of headers."""

from urllib.parse import urlsplit

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
PROGRAM_PATHS = ("/api/", "/healthz", "/readyz")


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
