"""Where a login node is: an SSH connection of Airflow's, or a secret of Airflow's and a host known only later.

A cluster that a DAG makes has no connection of its own. Its address therefore goes from task to task by XCom,
in the place of a connection's id, and holds no secret: ``KEY?host=10.0.3.7&user=ec2-user&host_key=...``.
The connection ``KEY`` gives the private key; host, user and the host's key are the address's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode

from strandloop.errors import InvalidJob


@dataclass(frozen=True)
class SshAddress:
    """A connection's id and, where they are not the connection's, host, user and host key.

    :param host_key: ``<type> <base64>``, the one key that the host may show. A host always comes with its key.
    """

    conn_id: str
    host: str = ""
    user: str = ""
    host_key: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what stands in the place of a connection's id.

        :raises InvalidJob: if it names a host without the host's key, or what is not known here.
        """
        conn_id, mark, query = text.partition("?")
        if not mark:
            return cls(conn_id)
        own = dict(parse_qsl(query))
        if not conn_id or own.keys() != {"host", "user", "host_key"}:
            raise InvalidJob(
                f"{text!r} is no address of a login node: it must be a connection's id, or "
                "CONNECTION?host=...&user=...&host_key=..., as the task that made the cluster returns it"
            )
        return cls(conn_id, **own)

    def __str__(self) -> str:
        if not self.host:
            return self.conn_id
        return f"{self.conn_id}?" + urlencode(
            {"host": self.host, "user": self.user, "host_key": self.host_key}
        )

    @property
    def in_words(self) -> str:
        """What errors call it."""
        at = f" to {self.user}@{self.host}" if self.host else ""
        return f"connection {self.conn_id!r}{at}"

    def extra(self, extra: dict[str, Any]) -> dict[str, Any]:
        """Return the connection's extra with this host's key in it."""
        return {**extra, "host_key": self.host_key} if self.host else extra
