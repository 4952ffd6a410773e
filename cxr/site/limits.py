"""Which requests are refused for where they come from, and how their errors are written. Plain functions of headers."""

import contextlib
import ipaddress
import re
from collections.abc import Collection
from urllib.parse import urlsplit

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
NAME = re.compile(r"([a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?)\.?")
PORT = re.compile(r"[0-9]{1,5}")
PREFIX = re.compile(r"(/(?!\.\.?(?:/|$))[A-Za-z0-9_.~-]+)*")  # neither . nor .. as a name
DEFAULT_PORTS = {"http": 80, "https": 443}
PROGRAM_PATHS = ("/api/", "/healthz", "/readyz")
SHARED_PATH = "/api/"  # what pages of other origins may be let in to, never the forms
PREFLIGHT_SECONDS = 600  # that a browser need not ask again


def split_host(text: str) -> tuple[str, int | None] | None:
    """Split a host and its port as in the header Host (RFC 9110, 7.2); None where it is none.

    Returns: the host as hosts are compared, in lower case, without the dot at its end, as ASCII (IDNA), an IPv6 address
        in brackets and in its short form (RFC 5952); and the port, None where there is none.
    """
    text = text.strip().lower()
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, ""
    if colon and not PORT.fullmatch(port):
        return None
    number = int(port) if port else None
    if host.startswith("[") and host.endswith("]"):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]", number
        except ValueError:
            return None
    try:
        found = NAME.fullmatch(host.encode("idna").decode() if not host.isascii() else host)
    except UnicodeError:
        return None
    return (found[1], number) if found else None


def host_of_user(text: str) -> str:
    """Return the host that somebody means who writes a name, an address, or the address of a page.

    Raises:
        ValueError: there is no host in it.
    """
    text = text.strip()
    if "://" in text:
        text = urlsplit(text).netloc
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    parts = split_host(text)
    if parts is None:
        raise ValueError(f"Expected the name of a host such as cxr.example.org, received {text!r}.")
    return parts[0]


def url_prefix(text: str) -> str:
    """Return a path as WSGI wants its SCRIPT_NAME: with a slash in front and none behind; "" for the root.

    Raises:
        ValueError: it holds more than names and slashes.
    """
    path = "/".join(["", *filter(None, text.split("/"))])
    if not PREFIX.fullmatch(path):
        raise ValueError(f"Expected a path such as /cxr, received {text!r}.")
    return path


def page_origin(text: str) -> str:
    """Return an origin as browsers write it in the header Origin (RFC 6454, 6.2): no path, no port that is the usual.

    Raises:
        ValueError: it is none, or a pattern.
    """
    scheme, _, rest = text.strip().lower().removesuffix("/").partition("://")
    parts = split_host(rest)
    if scheme not in DEFAULT_PORTS or parts is None or rest.endswith(".") or parts[1] not in (None, *range(1, 2**16)):
        raise ValueError(f"Expected an origin such as https://app.example.org:8443, received {text!r}.")
    host, port = parts
    return f"{scheme}://{host}" if port in (None, DEFAULT_PORTS[scheme]) else f"{scheme}://{host}:{port}"


def sharing_headers(method: str, path: str, origin: str | None, allowed: Collection[str]) -> dict[str, str]:
    """Return the headers that let pages of allowed origins read answers for programs (CORS; Fetch standard, 3.2).

    Credentials are never allowed; a refusal is the absence of the headers.

    Args:
        origin: the header, None where it is missing.
        allowed: origins as `page_origin` returns them.
    """
    if not allowed or not path.startswith(SHARED_PATH):
        return {}
    headers = {"Vary": "Origin"}
    if origin in allowed:
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "Retry-After, X-Request-Id"}
        if method == "OPTIONS":
            headers["Access-Control-Allow-Methods"] = "GET, POST"
            headers["Access-Control-Allow-Headers"] = "Content-Type"
            headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
    return headers


def is_loopback(address: str) -> bool:
    """Say whether only this machine can reach an address that a socket is bound to."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


def trusted_hosts(host: str, bound_address: str, names: Collection[str]) -> frozenset[str] | None:
    """Return the hosts that requests may name, None for any.

    The names that visitors use come on top of this machine's own, which health checks use.

    Args:
        host: what the site was told to listen on.
        bound_address: the IP address that this became.
        names: by which visitors address it, as `host_of_user` returns them.
    """
    if not names and not is_loopback(bound_address):
        return None
    own = []
    for one in (host, bound_address):
        with contextlib.suppress(ValueError):  # nothing, for all addresses; an address with a zone
            own.append(host_of_user(one))
    return frozenset({*LOCAL_HOSTS, *own, *names})


def host_is_trusted(host: str | None, trusted: Collection[str] | None) -> bool:
    """Say whether a request names one of the site's own hosts in its header Host.

    Another name means that a page of another site made the browser believe that this one is its own (DNS rebinding).
    Werkzeug's own check knows no IPv6 addresses.

    Args:
        host: the header, None where it is missing.
        trusted: hosts as `split_host` returns them; None for any.
    """
    if trusted is None:
        return True
    parts = split_host(host or "")
    return parts is not None and parts[0] in trusted


def sent_by_another_site(fetch_site: str | None, origin: str | None, host: str | None) -> bool:
    """Say whether a browser sent the request for a page of another site (Fetch Metadata, W3C; Origin, RFC 6454).

    Programs such as curl send neither header and are let in: without cookies there is nothing to borrow from them.

    Args:
        fetch_site, origin: the headers Sec-Fetch-Site and Origin, None where they are missing.
        host: the header Host: what the request is addressed to.
    """
    if fetch_site is not None:
        return fetch_site not in ("same-origin", "none")
    return origin is not None and not _same_origin(origin, host or "")


def _same_origin(origin: str, host: str) -> bool:
    """Compare an origin with a header Host, whose port is the usual one of the origin's scheme where it names none."""
    scheme, _, rest = origin.partition("://")
    usual, ours, theirs = DEFAULT_PORTS.get(scheme.lower()), split_host(host), split_host(rest)
    if usual is None or ours is None or theirs is None:
        return False
    return (ours[0], ours[1] or usual) == (theirs[0], theirs[1] or usual)


def explain_other_site(origin: str | None, host: str | None) -> str:
    """Say why a request counts as another site's, and what to do where a proxy is the cause."""
    sender = split_host(origin.partition("://")[2]) if origin else None
    if sender is None or split_host(host or "") is None:
        return "The page it was sent from is not of this site. Open this site itself and choose the picture there."
    return (
        f"Origin {origin}, addressed as {host} (header Host). If you came from another site, open this one itself and "
        "choose the picture there. If a proxy stands between: pass the Host on and start with --trusted-host "
        f"{sender[0]}."
    )


def wants_json(path: str, accepts_json: float, accepts_html: float) -> bool:
    """Say whether an error goes out as problem details: to programs, by route or by the header Accept.

    Args:
        accepts_json, accepts_html: the qualities that the header gives them, 0 to 1.
    """
    return path.startswith(PROGRAM_PATHS) or accepts_json > accepts_html
