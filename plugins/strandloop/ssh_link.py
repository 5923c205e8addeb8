"""One SSH connection that carries several commands at a time, none of which can harm the others."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncssh

from strandloop.completed import COMMAND_TIMEOUT, OUTPUT_LIMIT_BYTES, Completed
from strandloop.errors import ConnectionBroken
from strandloop.slurm_commands import Command
from strandloop.ssh_address import SshAddress

#: Commands at a time, below what sshd allows a connection by default (``MaxSessions 10``): it counts a
#: command for a moment longer than we do.
PLACES = 8


class Refused(Exception):
    """sshd will not run one more command on this connection now; the command did not run."""


class SshLink(asyncssh.SSHClient):
    """A connection and the places on it.

    A command that nobody waits for any more is ended, which not every command and sshd lets happen; it keeps
    its place until it is gone. If that takes longer than a command may, as when a file system hangs, the
    connection is worn out: it takes no further commands, and closes when the others have ended.

    :param on_change: called when a place is free again, and when the link is worn out or lost.
    """

    def __init__(self, conn_id: str, *, on_change: Callable[[SshLink], None]) -> None:
        self.running = 0
        self.worn = False
        self.lost: ConnectionBroken | None = None
        #: A command was seen to start.
        self.proven = False
        self._conn_id = conn_id
        self._on_change = on_change
        self._places = PLACES
        self._connection: asyncssh.SSHClientConnection

    @property
    def free(self) -> bool:
        """Whether it takes one more command."""
        return not self.worn and not self.lost and self.running < self._places

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """Take the connection from asyncssh."""
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear from asyncssh that the connection is closed, by us or not."""
        self.lost = self._broken(str(exc) if exc else "it was closed")
        self._on_change(self)

    def give_back(self) -> None:
        """Leave a place to others."""
        self.running -= 1
        if self.worn and not self.running:
            self.abort()
        self._on_change(self)

    def wear_out(self) -> None:
        """Take no further commands, and close when those that run have ended."""
        self.worn = True
        if not self.running:
            self.abort()
        self._on_change(self)

    def abort(self) -> None:
        """Close at once."""
        self._connection.abort()

    async def closed(self) -> None:
        """Wait until it is closed."""
        await self._connection.wait_closed()

    async def run(self, command: Command) -> Completed:
        """Run a command in a place that was taken, and give the place back.

        :raises ConnectionBroken: if it broke, or the command took too long or said too much.
        :raises Refused: if sshd does not take it.
        """
        answer = _Answer(self._broken)
        talk = asyncio.create_task(self._talk(command, answer))
        talk.add_done_callback(self._talked)
        try:
            # This alone neither ends the command when time is up, nor when the waiter is cancelled.
            await asyncio.wait([talk], timeout=COMMAND_TIMEOUT)
        finally:
            if not talk.done():
                answer.abandon()
                asyncio.get_running_loop().call_later(COMMAND_TIMEOUT, self._bury, talk)
        if not talk.done():
            self.wear_out()
            raise self._broken(f"a command did not end within {COMMAND_TIMEOUT:.0f} s")
        return talk.result()

    async def _talk(self, command: Command, answer: _Answer) -> Completed:
        try:
            await self._connection.create_session(lambda: answer, shlex.join(command.args), encoding=None)
        except asyncssh.ChannelOpenError as error:
            if self.lost or self._connection.is_closed():
                raise self._broken(str(error)) from error
            self._places = max(1, self._places - 1)
            if self.proven and self.running == 1:
                self.wear_out()
            raise Refused(str(error)) from error
        except (asyncssh.Error, OSError) as error:
            raise self._broken(str(error) or type(error).__name__) from error
        self.proven = True
        answer.start(command.stdin)
        return await answer.completed

    def _talked(self, talk: asyncio.Task[Completed]) -> None:
        if not talk.cancelled():
            talk.exception()  # of a command that nobody waits for any more, nobody else asks for it
        self.give_back()

    def _bury(self, talk: asyncio.Task[Completed]) -> None:
        if not talk.done():
            self.wear_out()
            talk.cancel()

    def _broken(self, words: str) -> ConnectionBroken:
        return ConnectionBroken(f"{SshAddress.parse(self._conn_id).in_words}: {words}")


class _Answer(asyncssh.SSHClientSession[bytes]):
    """Collects what one command says, up to a limit."""

    def __init__(self, broken: Callable[[str], ConnectionBroken]) -> None:
        self.completed: asyncio.Future[Completed] = asyncio.get_running_loop().create_future()
        self._broken = broken
        self.completed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._channel: asyncssh.SSHClientChannel[bytes]
        self._started = self._abandoned = False
        self._rc: int | None = None
        self._stdout = bytearray()
        self._stderr = bytearray()

    def connection_made(self, chan: Any) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        (self._stdout if datatype is None else self._stderr).extend(data)
        if len(self._stdout) + len(self._stderr) > OUTPUT_LIMIT_BYTES and not self.completed.done():
            limit = f"{OUTPUT_LIMIT_BYTES / 2**20:.0f} MiB"
            self.completed.set_exception(self._broken(f"a command answered more than {limit}"))
            self.abandon()

    def exit_status_received(self, status: int) -> None:
        self._rc = status

    def connection_lost(self, exc: Exception | None) -> None:
        if self.completed.done():
            return
        if self._rc is None or exc is not None:
            words = f": {exc}" if exc else ", which did not end by itself"
            self.completed.set_exception(self._broken(f"it broke while a command ran{words}"))
        else:
            self.completed.set_result(Completed(self._rc, bytes(self._stdout), bytes(self._stderr)))

    def start(self, stdin: bytes) -> None:
        """Give the command, which runs now, its input."""
        self._started = True
        if self._abandoned:
            self.abandon()
            return
        # A command may end before it has read everything: its exit status tells why.
        with suppress(OSError):
            self._channel.write(stdin)
            self._channel.write_eof()

    def abandon(self) -> None:
        """End the command, now or as soon as it runs; asyncssh wants a channel left alone before that."""
        self._abandoned = True
        if self._started:
            with suppress(OSError):
                self._channel.kill()
            self._channel.abort()
