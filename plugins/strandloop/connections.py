"""Reading an Airflow connection from an event loop, on every version of Airflow that this runs on."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseHook, Connection
from asgiref.sync import sync_to_async


async def read_connection(conn_id: str) -> tuple[Connection, dict[str, Any]]:
    """Read a connection and its extra, without blocking the loop.

    :raises AirflowException: if Airflow does not give it.
    """
    if hasattr(Connection, "aextra_dejson"):
        connection = await BaseHook.aget_connection(conn_id)
        return connection, await connection.aextra_dejson()
    # Before Airflow 3.3.2 secrets are masked by a blocking call, also of aget_connection, and in a loop that
    # fails while another call is on its way. A thread of asgiref's may block: Airflow finds its loop from there.
    return await sync_to_async(_read)(conn_id)


def _read(conn_id: str) -> tuple[Connection, dict[str, Any]]:
    connection = BaseHook.get_connection(conn_id)
    return connection, connection.extra_dejson
