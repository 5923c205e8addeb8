"""SSH connections that all waits of an event loop share, one set for each Airflow connection.

sshd refuses log-ins when too many are under way (``MaxStartups``, 10 at first) and commands when too many
run on one connection (``MaxSessions``, 10). So there are few connections, opened one after another and only
while those that are open do not suffice, and each carries fewer commands than sshd allows. Who finds no
free place waits for one; that takes as long as it takes and says nothing about the host.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from typing import ClassVar
from weakref import WeakKeyDictionary

import asyncssh

from strandloop.completed import Completed
from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.slurm_commands import Command
from strandloop.ssh_address import SshAddress
from strandloop.ssh_link import Refused, SshLink
from strandloop.ssh_login import SshLogin, wrong_host_key

#: Connections to one host: with the places on each, 32 commands at a time, some hundred in a second.
CONNECTIONS = 4
CONNECT_TIMEOUT = 30.0
#: A connection that stays silent so long, so many times in a row, is broken.
KEEPALIVE_SECONDS, KEEPALIVE_COUNT = 15.0, 3
#: Seconds after a failed log-in until anybody tries again: doubled with each failure, and jittered. The
#: longest is shorter than the triggerer's patience with a trigger that cancels its job.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
#: How long sshd may refuse to run one more command on a connection.
REFUSED_PATIENCE = 30.0

# It tells of each command at the level INFO, and all that is told while a trigger runs is in its task's log.
logging.getLogger("asyncssh").setLevel(logging.WARNING)


class SharedConnections:
    """The connections to one login node; :meth:`join` gives them, and who has joined must leave.

    The Airflow connection is read again before each log-in, so a new key counts from then on; when it leads
    to another place, what is open takes no further commands.
    """

    _of_loop: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedConnections]]] = (
        WeakKeyDictionary()
    )

    def __init__(self, login: SshLogin) -> None:
        self._login = login
        self._members = 0
        self._links: list[SshLink] = []
        self._waiting: deque[asyncio.Future[SshLink]] = deque()
        self._opening: asyncio.Task[None] | None = None
        self._failure: ConnectionBroken | InvalidJob | None = None
        self._failures = 0
        self._retry_at = 0.0

    @classmethod
    async def join(cls, conn_id: str) -> SharedConnections:
        """Become one of those who share the connections of this event loop; nothing is opened yet.

        :raises ConnectionBroken: if Airflow does not give the connection.
        :raises InvalidJob: if the connection is not safe.
        """
        login = await SshLogin.read(conn_id)
        of_loop = cls._of_loop.setdefault(asyncio.get_running_loop(), {})
        shared = of_loop.setdefault(conn_id, cls(login))
        shared._members += 1
        shared._renew(login)
        return shared

    async def leave(self) -> None:
        """Be done with the connections; the last one to leave closes them."""
        self._members -= 1
        if self._members:
            return
        del self._of_loop[asyncio.get_running_loop()][self._login.conn_id]
        links = list(self._links)
        for link in links:
            link.abort()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        for link in links:
            await link.closed()

    async def run(self, command: Command) -> Completed:
        """Run one command to its end; cancelling this ends the command and nothing else.

        :raises ConnectionBroken: if the host cannot be reached, the connection broke, or the command took
            too long or said too much: it may or may not have run then.
        :raises InvalidJob: if the host shows another key.
        """
        now = asyncio.get_running_loop().time
        give_up_at: float | None = None
        while True:
            link = await self._take()
            try:
                completed = await link.run(command)
            except Refused as error:
                give_up_at = give_up_at or now() + REFUSED_PATIENCE
                if now() > give_up_at:
                    raise self._broken(f"sshd refuses to run commands: {error}") from error
                await asyncio.sleep(random.uniform(0.1, 0.5))
            else:
                self._failures = 0
                return completed

    async def _take(self) -> SshLink:
        """Wait for a place on a connection, and take it."""
        place: asyncio.Future[SshLink] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._arrange()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                place.result().give_back()
            raise

    def _arrange(self) -> None:
        """Give free places to those who wait longest; open a connection if that is not enough."""
        while self._waiting:
            if self._waiting[0].done():  # its waiter was cancelled
                self._waiting.popleft()
                continue
            free = [link for link in self._links if link.free]
            if not free:
                break
            link = min(free, key=lambda link: link.running)
            link.running += 1
            self._waiting.popleft().set_result(link)
        if not self._waiting or self._opening is not None:
            return
        usable = sum(not link.worn for link in self._links)
        if asyncio.get_running_loop().time() >= self._retry_at:
            if usable < CONNECTIONS:
                self._opening = asyncio.create_task(self._open())
        elif not usable and self._failure is not None:
            waiting, self._waiting = self._waiting, deque()
            for place in waiting:
                if not place.done():
                    place.set_exception(type(self._failure)(str(self._failure)))

    async def _open(self) -> None:
        """Log in once more; a failure keeps everybody from trying again for a while."""
        conn_id = self._login.conn_id
        link = SshLink(conn_id, on_change=self._changed)
        try:
            login = await SshLogin.read(conn_id)
            self._renew(login)
            options = await asyncio.to_thread(login.options)
            await asyncssh.connect(
                client_factory=lambda: link,
                connect_timeout=CONNECT_TIMEOUT,
                login_timeout=CONNECT_TIMEOUT,
                keepalive_interval=KEEPALIVE_SECONDS,
                keepalive_count_max=KEEPALIVE_COUNT,
                **options,
            )
            if link.lost:
                raise link.lost
            self._links.append(link)
        except (ConnectionBroken, InvalidJob) as error:
            self._failed(error)
        except asyncssh.HostKeyNotVerifiable as error:
            self._failed(wrong_host_key(conn_id, error))
        except Exception as error:
            # Whatever it was, all who wait are told, and it is tried again.
            self._failed(self._broken(f"cannot log in: {str(error) or type(error).__name__}"))
        finally:
            self._opening = None
        self._arrange()

    def _changed(self, link: SshLink) -> None:
        if link.lost and link in self._links:
            self._links.remove(link)
            if link.running and not link.proven and not link.worn:
                # A host that lets us in and throws us out again is no better than one that does not answer.
                self._failed(link.lost)
        self._arrange()

    def _failed(self, failure: ConnectionBroken | InvalidJob) -> None:
        self._failure = failure
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._failures = min(self._failures + 1, 10)
        self._retry_at = asyncio.get_running_loop().time() + pause * random.uniform(0.5, 1.0)

    def _renew(self, login: SshLogin) -> None:
        """Go by what the Airflow connection says now."""
        if login.place != self._login.place:
            self._retry_at = 0.0
            for link in list(self._links):
                link.wear_out()
        self._login = login

    def _broken(self, words: str) -> ConnectionBroken:
        return ConnectionBroken(f"{SshAddress.parse(self._login.conn_id).in_words}: {words}")
