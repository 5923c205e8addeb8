"""Client of Ray's Jobs REST API: an Airflow connection, and dialogues played over it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from airflow.sdk import BaseHook, Connection

from strandloop.errors import InvalidJob
from strandloop.ray_dialogue import Answer, Ask, Dialogue, Pause, Say

# A slow dashboard is waited for; a host that does not even accept a connection is not.
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
LINES_AT_ONCE = 100

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
            connection = await self.aget_connection(self.ray_conn_id)
            # Airflow 3.2 has no asynchronous twin, and the property of 3.3 must not be read in a loop.
            extra = (
                await connection.aextra_dejson()
                if hasattr(connection, "aextra_dejson")
                else json.loads(connection.extra or "{}")
            )
            self._dashboard = dashboard_of(connection, extra)
        return self._dashboard

    def play(self, dialogue: Dialogue[T]) -> T:
        """Play a dialogue to its end, with a client of its own, and return what it returns."""
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
                    case Pause(seconds):
                        time.sleep(seconds)
                    case Say(lines):
                        for line in lines:
                            self.log.info("%s", line)

    async def aplay(self, dialogue: Dialogue[T]) -> T:
        """Do what :meth:`play` does, without blocking the event loop."""
        dashboard, answer = await self.adashboard(), None
        async with httpx.AsyncClient(**_options(dashboard)) as client:
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
                    case Pause(seconds):
                        await asyncio.sleep(seconds)
                    case Say(lines):
                        for number, line in enumerate(lines):
                            self.log.info("%s", line)
                            if number % LINES_AT_ONCE == 0:
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
        "timeout": TIMEOUT,
    }


def _request(client: httpx.Client | httpx.AsyncClient, ask: Ask) -> httpx.Request:
    return client.build_request(ask.method, ask.path, json=ask.json, content=ask.content)


def _answer(response: httpx.Response) -> Answer:
    return Answer(response.status_code, response.text)


def _silence(error: httpx.HTTPError) -> Answer:
    return Answer(None, f"{type(error).__name__}: {error}")
