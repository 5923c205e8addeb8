"""An SSH server on a free loopback port, in a thread of its own, that counts and misbehaves when told to.

It runs each command in a shell of this machine. Its limits stand for sshd's MaxStartups and MaxSessions.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncssh

USER = "ec2-user"


@dataclass
class Counts:
    """What the server has seen."""

    connections: int = 0
    most_at_login: int = 0
    most_sessions: int = 0
    commands: int = 0


@dataclass
class PlayedServer:
    """Start it with :func:`ssh_server`; ``connection`` is what Airflow must know of it.

    :param max_sessions: commands at a time on one connection.
    :param silent: a connection is closed before a word is said, as sshd does over MaxStartups.
    :param deaf: a command that is to be killed goes on.
    """

    port: int = 0
    max_sessions: int = 10
    silent: bool = False
    deaf: bool = False
    counts: Counts = field(default_factory=Counts)
    open: list[_Connection] = field(default_factory=list)
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    client_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._acceptor: asyncssh.SSHAcceptor | None = None

    @property
    def connection(self) -> str:
        """The Airflow connection, as its environment variable has it."""
        extra = {
            "host_key": self.host_key.export_public_key().decode().strip(),
            "private_key": self.client_key.export_private_key().decode(),
        }
        values = {"conn_type": "ssh", "host": "127.0.0.1", "port": self.port, "login": USER, "extra": extra}
        return json.dumps(values)

    @property
    def running(self) -> int:
        """Commands that run now."""
        return sum(connection.sessions for connection in self.open)

    def start(self) -> None:
        """Listen, on the port of the last time."""
        if not self._thread.is_alive():
            self._thread.start()
        self._call(self._listen())

    def stop(self) -> None:
        """Close the port and all connections."""
        self._call(self._close())

    def drop_connections(self) -> None:
        """Cut every connection."""
        self._call(self._drop())

    def end(self) -> None:
        """Be gone."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, what: Any) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout=20)

    async def _listen(self) -> None:
        keys = asyncssh.import_authorized_keys(self.client_key.export_public_key().decode())
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_host_keys=[self.host_key],
            server_factory=lambda: _Connection(self),
            authorized_client_keys=keys,
            encoding=None,
        )
        self.port = self._acceptor.get_port()

    async def _close(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        await self._drop()
        while self.open or len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)

    async def _drop(self) -> None:
        for connection in list(self.open):
            connection.cut()


class _Connection(asyncssh.SSHServer):
    def __init__(self, server: PlayedServer) -> None:
        self.server = server
        self.sessions = 0
        self.logged_in = False

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._conn = conn
        counts, server = self.server.counts, self.server
        counts.connections += 1
        server.open.append(self)
        counts.most_at_login = max(counts.most_at_login, sum(not each.logged_in for each in server.open))
        if server.silent:
            conn.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.open.remove(self)

    def auth_completed(self) -> None:
        self.logged_in = True

    def cut(self) -> None:
        self._conn.abort()

    def session_requested(self) -> Any:
        counts = self.server.counts
        if self.sessions >= self.server.max_sessions:
            return False
        self.sessions += 1
        counts.most_sessions = max(counts.most_sessions, self.sessions)
        return asyncssh.SSHServerProcess(self._serve, None, 3, False)

    async def _serve(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.server.counts.commands += 1
        child = await asyncio.create_subprocess_exec(
            *("sh", "-c", process.command or ""),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        talk = asyncio.create_task(self._talk(process, child))
        gone = asyncio.create_task(process.wait_closed())
        await asyncio.wait([talk, gone], return_when=asyncio.FIRST_COMPLETED)
        while self.server.deaf and child.returncode is None:
            await asyncio.sleep(0.01)
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
        answer = await talk
        self.sessions -= 1
        if answer is not None:
            with suppress(OSError):
                process.stdout.write(answer[0])
                process.stderr.write(answer[1])
                process.exit(child.returncode or 0)

    async def _talk(
        self, process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process
    ) -> tuple[bytes, bytes] | None:
        try:
            return await child.communicate(await process.stdin.read())
        except (asyncssh.SignalReceived, asyncssh.ConnectionLost, OSError):  # instead of the input's end
            return None


@contextmanager
def ssh_server(**settings: Any) -> Iterator[PlayedServer]:
    """A server for as long as the block runs."""
    server = PlayedServer(**settings)
    server.start()
    try:
        yield server
    finally:
        server.end()
