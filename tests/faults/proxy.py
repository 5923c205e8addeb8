"""A TCP proxy on loopback that misbehaves when told to: between Airflow and sshd, or Ray's dashboard."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PIECE = 64 * 1024
# Linger on, zero seconds: closing sends a reset instead of an orderly end.
RESET = struct.pack("ii", 1, 0)


@dataclass
class Proxy:
    """Passes bytes on to ``target`` until a fault is switched on.

    :param target: port on 127.0.0.1.
    :param refusing: new connections are reset at once, as by a host that is down.
    :param saying: instead of passing a request on, answer it with these bytes and close.
    :param delay_seconds: hold each piece of a request back for so long.
    """

    target: int
    refusing: bool = False
    saying: bytes = b""
    delay_seconds: float = 0.0
    _pairs: set[tuple[socket.socket, socket.socket]] = field(default_factory=set)
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def cut(self) -> int:
        """Reset every connection that is open now, and return how many."""
        with self._mutex:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _reset(*pair)
        return len(pairs)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        with self._mutex:
            return len(self._pairs)

    @contextmanager
    def down(self) -> Iterator[None]:
        """The host cannot be reached for as long as the block runs."""
        self.refusing = True
        self.cut()
        try:
            yield
        finally:
            self.refusing = False

    @contextmanager
    def answering(self, status: str, body: str) -> Iterator[None]:
        """Every HTTP request is answered with an error for as long as the block runs."""
        self.saying = (
            f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
            f"Connection: close\r\n\r\n{body}"
        ).encode()
        try:
            yield
        finally:
            self.saying = b""

    @contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Every request waits for as long as the block runs."""
        self.delay_seconds = seconds
        try:
            yield
        finally:
            self.delay_seconds = 0.0

    def close(self) -> None:
        """Stop listening and cut what is open."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="proxied", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.refusing:
            return _reset(client)
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            return _reset(client)
        pair = (client, server)
        with self._mutex:
            self._pairs.add(pair)
        try:
            self._pump(client, server)
        except (OSError, ValueError):
            pass  # one side has gone: the other follows below
        finally:
            with self._mutex:
                self._pairs.discard(pair)
            client.close()
            server.close()
        return None

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            for source in select.select([client, server], [], [])[0]:
                piece = source.recv(PIECE)
                if not piece:
                    return
                if source is client and self.saying:
                    client.sendall(self.saying)
                    return
                if source is client and self.delay_seconds:
                    self._closed.wait(self.delay_seconds)
                (server if source is client else client).sendall(piece)


def _reset(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            each.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            each.close()
