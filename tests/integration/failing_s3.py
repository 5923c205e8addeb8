"""A proxy in front of an S3 server that answers 503 and cuts bodies, as often as it is told to."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class FailingS3:
    """Where to reach it, and what it does to requests while :meth:`failing` holds.

    Every fifth request is refused with 503, every seventh is carried out and then answered with 503, and every
    body of more than 16 KiB ends in the middle at every second GET.
    """

    def __init__(self, server: str) -> None:
        self.server = urlsplit(server)
        self.counts = {"refused": 0, "answer lost": 0, "cut": 0}
        self._requests = 0
        self._bodies = 0
        self._lock = threading.Lock()
        self._is_failing = False

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Fail within the block."""
        self._is_failing = True
        try:
            yield
        finally:
            self._is_failing = False

    def fault(self, *, method: str, body_bytes: int | None = None) -> str | None:
        """What goes wrong with a request (before it is sent on), or with an answer of so many bytes."""
        if not self._is_failing:
            return None
        with self._lock:
            if body_bytes is None:
                self._requests += 1
                found = "refused" if self._requests % 5 == 0 else None
                if found is None and self._requests % 7 == 0:
                    found = "answer lost"
            else:
                large = method == "GET" and body_bytes > 16 << 10
                self._bodies += large
                found = "cut" if large and self._bodies % 2 else None
            if found:
                self.counts[found] += 1
            return found

    @contextmanager
    def serve(self) -> Iterator[str]:
        """The proxy's address within the block."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        faults = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = faults.fault(method=self.command)
                if fault == "refused":
                    return self._answer(503, {}, b"")
                connection = http.client.HTTPConnection(str(faults.server.netloc))
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                connection.close()
                if fault == "answer lost":
                    return self._answer(503, {}, b"")
                skipped = ("content-length", "transfer-encoding", "connection", "date", "server")
                headers = {name: value for name, value in answer.getheaders() if name.lower() not in skipped}
                headers["Content-Length"] = answer.getheader("Content-Length") or str(len(content))
                if faults.fault(method=self.command, body_bytes=len(content)):
                    content, self.close_connection = content[: len(content) // 2], True
                return self._answer(answer.status, headers, content)

            def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Nothing: the server behind it has a log."""

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _pass_on

        return Handler
