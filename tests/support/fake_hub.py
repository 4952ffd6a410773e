"""A local HTTP server that plays the model hub: one file, and every way in which its delivery can go wrong."""

import contextlib
import hashlib
import http.server
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """What is served and how, and what was asked for.

    Attributes:
        content: the file.
        cut_after: bytes after which a connection breaks off; None for never.
        stated_sha256: what the server says the file's checksum is; by default its true one.
        status: of every answer.
        requests: (method, path, Range header) in order.
    """

    def __init__(self, content):
        self.content, self.cut_after, self.status = content, None, 200
        self.stated_sha256 = hashlib.sha256(content).hexdigest()
        self.requests, self.address = [], ""


@contextlib.contextmanager
def running_hub(content):
    """Serve `content` at every file's address until the block ends; yields the FakeHub."""
    hub = FakeHub(content)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments):
            pass

        def do_HEAD(self):
            self._answer(with_body=False)

        def do_GET(self):
            self._answer(with_body=True)

        def _answer(self, with_body):
            span = self.headers.get("Range")
            if self.path.startswith("/api/"):  # what the client would like to know beside the file
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            hub.requests.append((self.command, self.path, span))
            if hub.status != 200:
                self.send_response(hub.status)
                self.send_header("Content-Length", "0")
                if hub.status == 404:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.end_headers()
                return
            start = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
            body = hub.content[start:]
            self.send_response(206 if span else 200)
            if span:
                self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{hub.stated_sha256}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body[: hub.cut_after])
                if hub.cut_after is not None and hub.cut_after < len(body):
                    self.close_connection = True
                    self.wfile.flush()
                    self.connection.close()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
