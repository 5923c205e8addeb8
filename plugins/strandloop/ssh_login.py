"""What an Airflow connection of type ``ssh`` says: where to log in, as whom, and whose host key it must be.

Where the connection's id is an address (see :mod:`strandloop.ssh_address`), these three are the address's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import asyncssh
from airflow.sdk.exceptions import AirflowException

from strandloop.connections import read_connection
from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.ssh_address import SshAddress

#: Extras that switch the verification of the host key off, where somebody has set them.
_UNSAFE = ("no_host_key_check", "ignore_hostkey_verification", "allow_host_key_change")


@dataclass(frozen=True)
class SshLogin:
    """A login, its keys still as text or as the name of a file.

    :param host_key: ``<type> <base64>``, the one key that the host may show.
    """

    conn_id: str
    host: str
    port: int
    user: str | None
    host_key: str
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)
    key_file: str | None = None
    passphrase: str | None = field(default=None, repr=False)

    @classmethod
    async def read(cls, conn_id: str) -> Self:
        """Read an Airflow connection.

        :param conn_id: its id, or an address.
        :raises ConnectionBroken: if Airflow does not give it. Airflow says the same of a connection that
            does not exist and of an API server that is down.
        :raises InvalidJob: if it does not verify the host.
        """
        address = SshAddress.parse(conn_id)
        try:
            connection, extra = await read_connection(address.conn_id)
        except AirflowException as error:
            raise ConnectionBroken(
                f"connection {address.conn_id!r}: Airflow does not give it: {error}"
            ) from error
        extra = address.extra(extra)
        return cls(
            conn_id,
            host=address.host or connection.host or "",
            port=connection.port or 22,
            user=address.user or connection.login,
            host_key=verified_host_key(address.conn_id, extra),
            password=connection.password,
            private_key=extra.get("private_key"),
            key_file=extra.get("key_file"),
            passphrase=extra.get("private_key_passphrase"),
        )

    @property
    def place(self) -> tuple[str, int, str | None, str]:
        """Where it leads; a connection that is open stays right as long as this does."""
        return self.host, self.port, self.user, self.host_key

    def options(self) -> dict[str, Any]:
        """Return arguments of ``asyncssh.connect``.

        It blocks: a key file may lie on a slow file system, and a key with a passphrase costs a second of
        computing on purpose.

        :raises InvalidJob: if a private key cannot be read.
        :raises OSError: if its file cannot be read.
        """
        options: dict[str, Any] = {
            "host": self.host,
            "port": self.port,
            "username": self.user or (),
            "known_hosts": ([asyncssh.import_public_key(self.host_key)], [], []),
            "config": None,
        }
        try:
            if self.private_key:
                options["client_keys"] = [asyncssh.import_private_key(self.private_key, self.passphrase)]
            elif self.key_file:
                options["client_keys"] = [asyncssh.read_private_key(self.key_file, self.passphrase)]
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            where = "private_key extra" if self.private_key else f"key file {self.key_file}"
            words = SshAddress.parse(self.conn_id).in_words
            raise InvalidJob(f"{words}: its {where} cannot be read: {error}") from error
        if self.password:
            options["password"] = self.password
        return options


def verified_host_key(conn_id: str, extra: dict[str, Any]) -> str:
    """Return the host key that a connection's extra names, as ``<type> <base64>``.

    :raises InvalidJob: if it names none that can be read, or asks not to look at the host's key.
    """
    for option in _UNSAFE:
        if str(extra.get(option, False)).lower() == "true":
            raise InvalidJob(f"connection {conn_id!r} sets {option}: host keys are always verified here")
    parts = str(extra.get("host_key") or "").split()
    if not parts:
        raise InvalidJob(
            f"connection {conn_id!r} has no host_key extra: put '<type> <key>' there, as ssh-keyscan "
            "prints it, after comparing it with the cluster's own"
        )
    # The ssh provider reads a key without a type as RSA.
    key = " ".join(parts[:2]) if len(parts) > 1 else f"ssh-rsa {parts[0]}"
    try:
        asyncssh.import_public_key(key)
    except asyncssh.KeyImportError as error:
        raise InvalidJob(f"connection {conn_id!r}: its host_key extra cannot be read: {error}") from error
    return key


def wrong_host_key(conn_id: str, error: Exception) -> InvalidJob:
    """Return the error for a host that shows another key than it should."""
    address = SshAddress.parse(conn_id)
    if address.host:
        return InvalidJob(
            f"{address.in_words}: the host shows another key than the head node printed on its console "
            f"when it was made ({error}). If the head node was replaced, clear the task that makes the "
            "cluster; if not, somebody is in between"
        )
    return InvalidJob(
        f"connection {conn_id!r}: the host shows another key than the connection's host_key extra "
        f"({error}). If the machine was rebuilt, change the connection; if not, somebody is in between"
    )
