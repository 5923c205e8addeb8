"""Client of Ray's Jobs REST API: an Airflow connection, and dialogues played over it."""

from __future__ import annotations

import asyncio
import ssl
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from airflow.sdk import BaseHook, Connection

from strandloop.connections import read_connection
from strandloop.errors import InvalidJob
from strandloop.ray_bookmark import Bookmark
from strandloop.ray_dialogue import ANSWER_WAIT, Answer, Ask, Dialogue, Fetch, Keep, Pause, Say

# A host that does not even accept a connection is not waited for.
CONNECT_WAIT = 10.0
# What is worked on at once in an event loop; a piece is some milliseconds of work.
PIECE_BYTES = 16_384
LINES_AT_ONCE = 50

T = TypeVar("T")


@dataclass(frozen=True)
class Dashboard:
    """Where Ray's dashboard is, and how to be let in; what an ``http`` connection means here.

    :param tls: how certificates are checked; None for plain HTTP.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    tls: ssl.SSLContext | None = None

    def job_page(self, submission_id: str) -> str:
        """Return the address of a job's page."""
        return f"{self.url}/#/jobs/{submission_id}"


class RayJobHook(BaseHook):
    """Speaks with the dashboard of a Ray cluster; Ray itself is not needed here.

    The connection has type ``http``: host, port, schema (``http`` or ``https``); login and password for
    basic authentication. Extra: ``token`` (sent as ``Authorization: Bearer``), ``verify`` (false, or the
    path of a file of certificate authorities), ``cert`` (path of a client certificate, or a list of its
    path and its key's path).

    :param ray_conn_id: connection to the dashboard.
    """

    conn_name_attr = "ray_conn_id"
    default_conn_name = "ray"
    conn_type = "http"
    hook_name = "Ray Jobs"

    def __init__(self, ray_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ray_conn_id = ray_conn_id
        self._dashboard: Dashboard | None = None

    def dashboard(self) -> Dashboard:
        """Return the dashboard that the connection names; the connection is read once."""
        if self._dashboard is None:
            connection = self.get_connection(self.ray_conn_id)
            self._dashboard = dashboard_of(connection, connection.extra_dejson)
        return self._dashboard

    async def adashboard(self) -> Dashboard:
        """Do what :meth:`dashboard` does, without blocking the event loop."""
        if self._dashboard is None:
            connection, extra = await read_connection(self.ray_conn_id)
            # Certificates are files.
            self._dashboard = await asyncio.to_thread(dashboard_of, connection, extra)
        return self._dashboard

    def play(self, dialogue: Dialogue[T], *, keep: Callable[[Bookmark], None] | None = None) -> T:
        """Play a dialogue to its end, with a client of its own, and return what it returns.

        :param keep: what becomes of the bookmarks of those who follow a job.
        """
        dashboard, answer = self.dashboard(), None
        with httpx.Client(**_options(dashboard)) as client:
            while True:
                try:
                    step = dialogue.send(answer)
                except StopIteration as end:
                    return end.value
                answer = None
                match step:
                    case Ask():
                        try:
                            answer = _answer(client.send(_request(client, step)))
                        except httpx.HTTPError as error:
                            answer = _silence(error)
                    case Fetch(path, take):
                        try:
                            with client.stream("GET", path) as response:
                                answer = _header(response)
                                for piece in response.iter_bytes(PIECE_BYTES):
                                    if answer.status != 200:
                                        answer = _with_text(answer, piece)
                                        break
                                    self._say(take(piece))
                        except httpx.HTTPError as error:
                            answer = _silence(error)
                    case Pause(seconds):
                        time.sleep(seconds)
                    case Say(lines):
                        self._say(lines)
                    case Keep(bookmark) if keep is not None:
                        keep(bookmark)

    async def aplay(
        self, dialogue: Dialogue[T], *, keep: Callable[[Bookmark], Awaitable[None]] | None = None
    ) -> T:
        """Do what :meth:`play` does, without blocking the event loop."""
        dashboard, answer = await self.adashboard(), None
        # To make a client reads files: certificates, and the environment's proxies.
        made = await asyncio.to_thread(httpx.AsyncClient, **_options(dashboard))
        async with made as client:
            while True:
                try:
                    step = dialogue.send(answer)
                except StopIteration as end:
                    return end.value
                answer = None
                match step:
                    case Ask():
                        try:
                            answer = _answer(await client.send(_request(client, step)))
                        except httpx.HTTPError as error:
                            answer = _silence(error)
                    case Fetch(path, take):
                        try:
                            async with client.stream("GET", path) as response:
                                answer = _header(response)
                                async for piece in response.aiter_bytes(PIECE_BYTES):
                                    if answer.status != 200:
                                        answer = _with_text(answer, piece)
                                        break
                                    await self._asay(take(piece))
                        except httpx.HTTPError as error:
                            answer = _silence(error)
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case Say(lines):
                        await self._asay(lines)
                    case Keep(bookmark) if keep is not None:
                        await keep(bookmark)

    def _say(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.log.info("%s", line)

    async def _asay(self, lines: Sequence[str]) -> None:
        for start in range(0, max(len(lines), 1), LINES_AT_ONCE):
            self._say(lines[start : start + LINES_AT_ONCE])
            await asyncio.sleep(0)


def dashboard_of(connection: Connection, extra: dict[str, Any]) -> Dashboard:
    """Read an ``http`` connection; see :class:`RayJobHook` for its fields.

    :raises InvalidJob: if it names no host, or a file that it names cannot be read.
    """
    title = f"connection {connection.conn_id!r}"
    if not connection.host:
        raise InvalidJob(f"{title} names no host; it needs the host and port of Ray's dashboard")
    scheme, _, host = connection.host.rpartition("://")
    scheme = scheme or connection.schema or "http"
    if scheme not in ("http", "https"):
        raise InvalidJob(f"{title}: its schema is {scheme!r}; Ray's dashboard speaks http or https")
    port = f":{connection.port}" if connection.port else ""
    try:
        tls = _tls(extra) if scheme == "https" else None
    except OSError as error:
        raise InvalidJob(f"{title}: its TLS files cannot be used: {error}") from error
    return Dashboard(
        f"{scheme}://{host.rstrip('/')}{port}", headers=_authorization(connection, extra), tls=tls
    )


def _tls(extra: dict[str, Any]) -> ssl.SSLContext:
    verify, cert = extra.get("verify", True), extra.get("cert")
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert:
        context.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
    return context


def _authorization(connection: Connection, extra: dict[str, Any]) -> dict[str, str]:
    if token := extra.get("token"):
        return {"Authorization": f"Bearer {token}"}
    if connection.login:
        pair = f"{connection.login}:{connection.password or ''}".encode()
        return {"Authorization": f"Basic {b64encode(pair).decode()}"}
    return {}


def _options(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "base_url": dashboard.url,
        "headers": dashboard.headers,
        "verify": dashboard.tls or False,
        "timeout": _timeout(ANSWER_WAIT),
    }


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_WAIT))


def _request(client: httpx.Client | httpx.AsyncClient, ask: Ask) -> httpx.Request:
    return client.build_request(
        ask.method, ask.path, json=ask.json, content=ask.content, timeout=_timeout(ask.wait)
    )


def _answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.text)


def _header(response: httpx.Response) -> Answer:
    """Return what a response is before its body: 200 only where that is plain text, as Ray's logs are."""
    kind = response.headers.get("Content-Type", "")
    if response.status_code == 200 and not kind.startswith("text/plain"):
        return Answer(None, f"not a plain text but {kind or 'of no type'}: ")
    return Answer(response.status_code, "")


def _with_text(answer: Answer, piece: bytes) -> Answer:
    return Answer(answer.status, answer.text + piece.decode("utf-8", "replace"))


def _silence(error: httpx.HTTPError) -> Answer:
    return Answer(None, f"{type(error).__name__}: {error}")
