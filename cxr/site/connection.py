"""One connection of the site's server: how long a client may take, how much it holds, and how it is refused.

A client that receives or sends has to keep to a minimum rate; a worker thread never waits for either. Requests of one
connection are taken in one after the other, each when the answer to the one before has been delivered.
"""

import contextlib
import socket
import time
from http import HTTPStatus

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.receiver import ChunkedReceiver
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge

GRACE_SECONDS = 30.0  # that a client may move nothing
MIN_BYTES_PER_SECOND = 32 * 1024  # 0.26 Mbit/s, in either direction; more time is not bought in advance
LINGER_SECONDS = 2.0  # that an early refusal is left on the line while the client still sends
MAX_CHUNK_LINE = 1024  # bytes of a chunk's length and extensions
MAX_TRAILER = 32 * 1024  # bytes of the headers behind the last chunk
SMALL_ANSWER = 2**20  # bytes; health, pages and errors, which go out however much is held


class Overloaded(Error):
    """Too much is held in memory already."""

    code = 503
    reason = "Service Unavailable"


class TooSlow(Error):
    """The request takes too long to come in."""

    code = 408
    reason = "Request Timeout"


class _NoRoomForAnswer(Exception):
    """The answer would take more memory than answers may."""


class _Parser(HTTPRequestParser):
    """Refuse every request line and header that cannot be parsed, or read in two ways; nothing of a request raises."""

    path = command = ""  # of a request that got no further

    def received(self, data: bytes) -> int:
        """Take in data; refuse chunks that claim too much at once, and lines between them that never end.

        waitress waits for what a chunk claims, and copies an unfinished line with every piece of it that comes.
        """
        consumed = super().received(data)
        body = self.body_rcv
        if isinstance(body, ChunkedReceiver) and not self.completed:
            if self.body_bytes_received + body.chunk_remainder >= self.adj.max_request_body_size:
                self.error = RequestEntityTooLarge("a chunk exceeds max_body")
            elif len(body.control_line) > MAX_CHUNK_LINE or len(body.trailer) > MAX_TRAILER:
                self.error = BadRequest("a line of the chunked body is too long")
            self.completed = self.error is not None
        return consumed

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError:  # an address such as http://[, a length of thousands of digits
            raise ParsingError("The request line or a header is invalid") from None
        if "CONTENT_LENGTH" in self.headers and (self.chunked or "TRANSFER_ENCODING" in self.headers):
            # A proxy that believes the length sees another end of this request than we do (RFC 9112, section 6.1).
            raise ParsingError("Content-Length and Transfer-Encoding together")
        if self.proxy_netloc:  # of http://host/path in the request line: it counts, not Host (section 3.2.2)
            self.headers["HOST"] = self.proxy_netloc


class _SiteErrorTask(ErrorTask):
    """Answer what never reaches the site (too large, too slow, not HTTP) with the site's own error page and headers."""

    def execute(self) -> None:
        status = self.request.error.code
        headers, body = self.channel.server.error_page(status)
        self.status = f"{status} {HTTPStatus(status).phrase}"
        self.response_headers.extend(headers)
        self.set_close_on_finish()
        self.channel.refused_early = True
        self.content_length = len(body)
        self.write(b"" if self.request.command == "HEAD" else body)


class _Task(WSGITask):
    """Run the site for one request; an answer that finds no room in memory becomes 503."""

    def execute(self) -> None:
        try:
            super().execute()
        except _NoRoomForAnswer:
            self.request.error = Overloaded("no room for the answer")
            refusal = _SiteErrorTask(self.channel, self.request)
            refusal.service()
            self.wrote_header, self.chunked_response, self.close_on_finish = True, False, True

    def write(self, data: bytes) -> None:
        if not self.wrote_header and len(data) > SMALL_ANSWER and not self.channel.server.reserve(self.channel, data):
            raise _NoRoomForAnswer
        super().write(data)
        self.channel.num_reserved = 0


class Channel(HTTPChannel):
    """A connection.

    Attributes:
        deadline: monotonic seconds at which it is cut, unless more is moved until then.
        linger_until: monotonic seconds, where it was refused early and only waits for the client to notice.
        num_reserved: bytes of an answer that is about to be handed over.
        condemned: whether the server's loop is to cut it, for others.
    """

    error_task_class = _SiteErrorTask
    task_class = _Task
    parser_class = _Parser
    refused_early = condemned = False
    linger_until: float | None = None
    num_received = num_reserved = 0
    unread = b""  # what came behind the request that is being answered

    def __init__(self, *args: object, **options: object) -> None:
        self._renew()
        super().__init__(*args, **options)

    @property
    def working(self) -> bool:
        """Whether a request was accepted and the site has not finished its answer: no time of the client's."""
        return bool(self.requests)

    @property
    def busy(self) -> bool:
        """Whether a request was accepted and its answer is not on its way yet."""
        return self.working or self.total_outbufs_len > 0

    @property
    def num_held(self) -> int:
        """Bytes of the request that comes in or is worked on, and of the answer that is not delivered yet."""
        received = self.num_received if self.request is not None or self.requests else 0
        return received + self.total_outbufs_len + self.num_reserved

    def _renew(self) -> None:
        self.deadline = time.monotonic() + GRACE_SECONDS

    def _moved(self, num_bytes: int) -> None:
        self.deadline = min(time.monotonic() + GRACE_SECONDS, self.deadline + num_bytes / MIN_BYTES_PER_SECOND)

    def recv(self, buffer_size: int) -> bytes:
        data = super().recv(buffer_size)
        self._moved(len(data))
        return data

    def send(self, data: bytes, do_close: bool = True) -> int:
        if not self.connected:  # closed by the loop since
            return 0
        num_bytes = super().send(data, do_close)
        self._moved(num_bytes)
        return num_bytes

    def write_soon(self, data: object) -> int:
        if not self.total_outbufs_len:
            self._renew()  # the time until here was the site's own
        return super().write_soon(data)

    def readable(self) -> bool:
        return self.linger_until is not None or (not self.unread and super().readable())

    def handle_read(self) -> None:
        if self.linger_until is None:
            super().handle_read()
        else:
            self.recv(self.adj.recv_bytes)  # thrown away; closes where the client has ended

    def handle_write(self) -> None:
        if self.connected:  # poll reports that it can be read and written at once, and the first may have closed it
            super().handle_write()

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
        """Take in what belongs to the request that comes in now; what follows it waits until that one is answered."""
        with self.requests_lock:
            if self.will_close or self.close_when_flushed:
                return False
            while data and not self.requests:
                if self.request is None:
                    self.request = self.parser_class(self.adj)
                    self.num_received = 0
                    self._renew()
                num_parsed = self.request.received(data)
                self.num_received += num_parsed
                data = data[num_parsed:]
                self._go_on_with_request()
            self.unread = data
        return True

    def _go_on_with_request(self) -> None:
        """Have the request worked on where it is complete, refuse it where there is no room for the rest of it."""
        request = self.request
        if request.headers_finished and not request.completed:
            if not self.server.has_room():
                self._refuse(Overloaded("too much at once"))
                return
            if request.expect_continue and not self.sent_continue:
                self.send_continue()
        if request.completed:
            self.sent_continue, self.request = False, None
            if not request.empty:
                self.requests.append(request)
                self.server.add_task(self)

    def _refuse(self, error: Error) -> None:
        """Answer an error to the request that is being received, without waiting for the rest of it."""
        request, self.request = self.request, None
        request.error, request.completed = error, True
        self.requests.append(request)
        self.server.add_task(self)

    def go_on(self) -> None:
        """Take in the next request of the connection where the answer before it has been delivered."""
        if self.unread and not self.busy:
            data, self.unread = self.unread, b""
            self.received(data)

    def service(self) -> None:
        try:
            super().service()
        finally:
            self.num_reserved = 0

    def enforce_deadline(self, now: float) -> None:
        """Refuse a request that comes in too slowly; close where an answer is not taken, or nothing comes at all."""
        if self.linger_until is not None:
            if now > self.linger_until:
                super().handle_close()
        elif now > self.deadline and not self.working:
            if self.request is not None and not self.total_outbufs_len:
                with self.requests_lock:
                    self._refuse(TooSlow("too slow"))
            else:
                self.cut()

    def cut(self) -> None:
        """Close at once. The loop would wait until the client takes what is on its way to it."""
        self.refused_early = False
        super().handle_close()
