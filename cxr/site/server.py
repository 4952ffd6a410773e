"""The web server around the site: waitress, with deadlines both ways, a bound for memory, and an orderly end.

Owns the process's signals. What a request is answered with is the site's work.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from cxr.site import connection
from cxr.site.connection import Channel
from cxr.site.errors import MAX_REQUEST_BYTES
from cxr.system.process import ending_signals

DRAIN_SECONDS = 20.0  # after the first signal
LOOK_SECONDS = 0.5  # between two looks at the deadlines
PATIENCE_SECONDS = 5.0  # below the minimum rate, after which a client makes room where memory is short
MAX_HEADER_BYTES = 32 * 1024
MAX_HELD_BYTES = 512 * 1024**2  # of requests and answers, those on their way included: 15 of the largest requests
MAX_CONNECTIONS = 100
SPARE_FILES = 32  # that connections leave to the site: pictures, decoders, the model
REST_SECONDS = 0.5  # without new connections where the system has run out of files
QUIET_SECONDS = 60.0  # without running out, before it is said again
SETTINGS = {
    "threads": 16,  # more than the site lets in on purpose: a refusal and /healthz need one that is free
    "max_request_header_size": MAX_HEADER_BYTES,
    "max_request_body_size": MAX_REQUEST_BYTES + 2**20,  # a little more, so that the site itself says 413
    "inbuf_overflow": MAX_REQUEST_BYTES + 2**21,  # uploads stay in memory; larger ones would be spooled to disk
    "outbuf_overflow": sys.maxsize,  # nor are answers
    "outbuf_high_watermark": sys.maxsize,  # a thread never waits for its reader; MAX_HELD_BYTES is the bound
    "recv_bytes": 2**16,
    "ident": None,  # no version banner
    "expose_tracebacks": False,
}
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
ErrorPage = Callable[[int], tuple[Iterable[tuple[str, str]], bytes]]  # status -> headers, body

logger = logging.getLogger(__name__)


class _Server(TcpWSGIServer):
    channel_class = Channel
    error_page: ErrorPage
    stopping = False
    max_connections = MAX_CONNECTIONS
    rest_until = said_out_of_files = next_look = -1e9  # monotonic seconds

    def __init__(self, *args: object, **options: object) -> None:
        self._memory_lock = threading.Lock()
        super().__init__(*args, **options)

    def channels(self) -> list[Channel]:
        return list(self.active_channels.values())

    # Memory

    def has_room(self, num_bytes: int = 0) -> bool:
        """Say whether so much more can be held; clients that are slower than they may be make room for it."""
        excess = sum(one.num_held for one in self.channels()) + num_bytes - MAX_HELD_BYTES
        if excess <= 0:
            return True
        latest = time.monotonic() + connection.GRACE_SECONDS - PATIENCE_SECONDS
        slow = [one for one in self.channels() if not one.working and one.num_held and one.deadline < latest]
        for one in sorted(slow, key=lambda one: one.deadline):
            excess -= one.num_held
            one.condemned = True
            if excess <= 0:
                break
        self.pull_trigger()
        return excess <= 0

    def reserve(self, channel: Channel, data: bytes) -> bool:
        """Count an answer before it is handed over; False where there is no room for it."""
        with self._memory_lock:
            if not self.has_room(len(data)):
                return False
            channel.num_reserved = len(data)
            return True

    # Connections

    def readable(self) -> bool:
        if not self.accepting or time.monotonic() < self.rest_until:
            return False
        return len(self.active_channels) < self.max_connections or self._least_active() is not None

    def handle_accept(self) -> None:
        """Take a new connection; where there are too many, the one that has done least for longest makes room."""
        if len(self.active_channels) >= self.max_connections and (idle := self._least_active()) is not None:
            idle.cut()
        try:
            accepted = self.accept()
        except OSError as error:
            if error.errno in OUT_OF_FILES:
                self._rest(error)
            return
        if accepted is not None:
            self.channel_class(self, *accepted, self.adj, map=self._map)

    def _least_active(self) -> Channel | None:
        return min((one for one in self.channels() if not one.working), key=lambda one: one.deadline, default=None)

    def _rest(self, error: OSError) -> None:
        """Wait for files to become free, and say so once."""
        now = time.monotonic()
        if now - self.said_out_of_files > QUIET_SECONDS:
            logger.error(
                "No further connection can be taken: %s. %d are open; new ones wait. Raise the limit (ulimit -n).",
                error.strerror,
                len(self.active_channels),
            )
        self.said_out_of_files, self.rest_until = now, now + REST_SECONDS
        if (idle := self._least_active()) is not None:
            idle.cut()

    def set_socket_options(self, conn: socket.socket) -> None:
        """Leave them as they are."""

    # The loop

    def turn(self, timeout: float) -> None:
        """Wait for something to happen, and see to it."""
        wasyncore.loop(timeout=timeout, use_poll=True, map=self._map, count=1)
        now = time.monotonic()
        look, channels = now >= self.next_look, self.channels()
        for channel in channels:
            channel.go_on()
            if channel.condemned:
                channel.cut()
            elif look:
                channel.enforce_deadline(now)
        if look:
            self.next_look = now + LOOK_SECONDS

    def run_until_stopped(self) -> None:
        """Serve until `stop`, then finish what was accepted, at most DRAIN_SECONDS long."""
        while not self.stopping:
            self.turn(LOOK_SECONDS)
        wasyncore.dispatcher.close(self)  # the listening socket: new connections are refused
        self.accepting = False
        end = time.monotonic() + DRAIN_SECONDS
        while self._close_idle() and time.monotonic() < end:
            self.turn(0.1)
        self.task_dispatcher.set_thread_count(0)

    def _close_idle(self) -> bool:
        """Close the connections that wait for nothing; return whether others are left."""
        for channel in self.channels():
            if not channel.busy:
                channel.handle_close()
        return any(channel.busy for channel in self.channels())

    def stop(self) -> None:
        self.stopping = True
        self.pull_trigger()  # wakes the loop


def serve(
    application: Callable,
    listener: socket.socket,
    error_page: ErrorPage,
    *,
    started: Callable[[], None],
    url_prefix: str = "",
    forwarded_headers: bool = False,
) -> None:
    """Serve until SIGTERM, SIGHUP or Ctrl-C; a second signal ends the process at once.

    Args:
        listener: bound TCP socket.
        error_page: gives the pages for what waitress refuses on its own.
        started: called when requests are answered and signals heeded.
        url_prefix: path below which visitors see the site, such as "/cxr"; a proxy may strip it or leave it.
        forwarded_headers: whether the application sees what proxies say of a request; else they are taken out.
    """
    settings = SETTINGS | {"clear_untrusted_proxy_headers": not forwarded_headers}
    adjustments = Adjustments(sockets=[listener], url_prefix=url_prefix, **settings)
    address = (listener.family, listener.type, listener.proto, listener.getsockname())
    server = _Server(application, _sock=listener, adj=adjustments, bind_socket=False, sockinfo=address)
    server.error_page = error_page
    server.max_connections = _connections_for(_file_limit())

    def handle(number: int, _frame: object) -> None:
        if server.stopping:
            os._exit(128 + number)
        server.stop()

    for number in ending_signals():
        signal.signal(number, handle)
    started()
    server.run_until_stopped()


def _connections_for(max_files: int) -> int:
    """Return how many connections there may be where the process may have so many files open."""
    return max(4, min(MAX_CONNECTIONS, max_files // 2, max_files - SPARE_FILES))


def _file_limit() -> int:
    """Return how many files this process may have open, after asking for as many as it may ask for."""
    with contextlib.suppress(ImportError):  # Windows
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = max(soft, min(hard, 1024))
        if soft != resource.RLIM_INFINITY and wanted > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft
    return 1024
