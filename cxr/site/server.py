"""The web server around the site: waitress, with a deadline for requests, a bound for memory, and an orderly end.

Owns the process's signals. What a request is answered with is the site's work.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask
from waitress.utilities import Error

from cxr.site.errors import MAX_REQUEST_BYTES

READ_SECONDS = 30.0  # from a request's first byte to its last
DRAIN_SECONDS = 20.0  # after the first signal
LINGER_SECONDS = 2.0  # that an early refusal is left on the line while the client still sends
MAX_HEADER_BYTES = 32 * 1024
MAX_HELD_BYTES = 512 * 1024**2  # of requests that are being received, wait or are worked on: 15 of the largest
SETTINGS = {
    "threads": 16,  # more than the site lets in on purpose: a refusal and /healthz need one that is free
    "connection_limit": 100,
    "channel_timeout": 30,  # seconds without a byte
    "cleanup_interval": 1,  # seconds between two looks at the deadlines
    "max_request_header_size": MAX_HEADER_BYTES,
    "max_request_body_size": MAX_REQUEST_BYTES + 2**20,  # a little more, so that the site itself says 413
    "inbuf_overflow": MAX_REQUEST_BYTES + 2**21,  # uploads stay in memory; larger ones would be spooled to disk
    "outbuf_overflow": 2**26,  # nor are answers
    "recv_bytes": 2**16,
    "ident": None,  # no version banner
    "clear_untrusted_proxy_headers": True,
    "expose_tracebacks": False,
}
ErrorPage = Callable[[int], tuple[Iterable[tuple[str, str]], bytes]]  # status -> headers, body


class _Overloaded(Error):
    code = 503
    reason = "Service Unavailable"


class _SiteErrorTask(ErrorTask):
    """Answer what never reaches the site (too large, not HTTP) with the site's own error page and headers."""

    def execute(self) -> None:
        status = self.request.error.code
        headers, body = self.channel.server.error_page(status)
        self.status = f"{status} {HTTPStatus(status).phrase}"
        self.response_headers.extend(headers)
        self.set_close_on_finish()
        self.channel.refused_early = True
        self.content_length = len(body)
        self.write(b"" if getattr(self.request, "command", "") == "HEAD" else body)  # unset where no line was read


class _Channel(HTTPChannel):
    """A connection that knows since when its request is being received, and how much it holds in memory."""

    error_task_class = _SiteErrorTask
    request_start = None  # monotonic seconds
    num_received = 0
    refused_early = False
    linger_until: float | None = None  # monotonic seconds

    def readable(self) -> bool:
        return self.linger_until is not None or super().readable()

    def handle_read(self) -> None:
        if self.linger_until is None:
            super().handle_read()
        else:
            self.recv(self.adj.recv_bytes)  # thrown away; closes where the client has ended

    def handle_close(self) -> None:
        """Close; after an early refusal only this side at first (RFC 9112, section 9.6).

        A client that is still sending would else be reset, and never see why it was refused.
        """
        if self.refused_early and self.linger_until is None and self.connected:
            self.linger_until = time.monotonic() + LINGER_SECONDS
            self.will_close = False
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
            return
        super().handle_close()

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self.request_start = time.monotonic()
            if not self.requests:
                self.num_received = 0
        self.num_received += len(data)
        if self.server.held_bytes() > MAX_HELD_BYTES and self._refuse():
            return True
        return super().received(data)

    def _refuse(self) -> bool:
        """Answer 503 for the request that is being received, without waiting for the rest of it."""
        with self.requests_lock:
            if self.request is None or not self.request.headers_finished or self.requests:
                return False
            self.request.error = _Overloaded("too much at once")
            self.request.completed = True
            self.requests.append(self.request)
            self.request = None
            self.server.add_task(self)
            return True

    @property
    def busy(self) -> bool:
        """Whether a request was accepted and its answer is not on its way yet."""
        return bool(self.requests) or self.total_outbufs_len > 0

    def overdue(self, now: float) -> bool:
        """Whether a request takes too long to come in, or a client that was refused does not stop."""
        if self.linger_until is not None:
            return now > self.linger_until
        return self.request is not None and now - self.request_start > READ_SECONDS


class _Server(TcpWSGIServer):
    channel_class = _Channel
    error_page: ErrorPage
    stopping = False

    def held_bytes(self) -> int:
        channels = list(self.active_channels.values())
        return sum(one.num_received for one in channels if one.request is not None or one.requests)

    def maintenance(self, now: float) -> None:
        """Close what is idle, and what trickles in so slowly that it keeps a connection for nothing."""
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.overdue(time.monotonic()):
                channel.refused_early = False
                channel.will_close = True

    def run_until_stopped(self) -> None:
        """Serve until `stop`, then finish what was accepted, at most DRAIN_SECONDS long."""
        while not self.stopping:
            wasyncore.loop(timeout=1, map=self._map, count=1)
        wasyncore.dispatcher.close(self)  # the listening socket: new connections are refused
        end = time.monotonic() + DRAIN_SECONDS
        while self._close_idle() and time.monotonic() < end:
            wasyncore.loop(timeout=0.1, map=self._map, count=1)
        self.task_dispatcher.shutdown(timeout=1)

    def _close_idle(self) -> bool:
        """Close the connections that wait for nothing; return whether others are left."""
        channels = list(self.active_channels.values())
        for channel in channels:
            if not channel.busy:
                channel.handle_close()
        return any(channel.busy for channel in channels)

    def stop(self) -> None:
        self.stopping = True
        self.pull_trigger()  # wakes the loop


def serve(
    application: Callable, listener: socket.socket, error_page: ErrorPage, *, started: Callable[[], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second signal ends the process at once.

    Args:
        listener: bound TCP socket.
        error_page: gives the pages for what waitress refuses on its own.
        started: called when requests are answered and signals heeded.
    """
    adjustments = Adjustments(sockets=[listener], **SETTINGS)
    address = (listener.family, listener.type, listener.proto, listener.getsockname())
    server = _Server(application, _sock=listener, adj=adjustments, bind_socket=False, sockinfo=address)
    server.error_page = error_page

    def handle(number: int, _frame: object) -> None:
        if server.stopping:
            os._exit(128 + number)
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    started()
    server.run_until_stopped()
