"""Slurm over SSH: one client that blocks, for operators, and one that does not, for triggers."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from typing import Any, Self

import asyncssh
import paramiko
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.ssh.hooks.ssh import SSHHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.slurm_commands import Command

#: Seconds that one command may take; the commands limit themselves to less.
COMMAND_TIMEOUT = 120.0
CONNECT_TIMEOUT = 30.0


@dataclass(frozen=True)
class Completed:
    """A command that ran to its end."""

    rc: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Both outputs, for a person."""
        return (self.stdout + self.stderr).decode("utf-8", "replace").strip()


class SlurmHook(BaseHook):
    """Runs commands on a cluster's login node; a context manager that holds one connection.

    The connection has type ``ssh`` and must carry the ``host_key`` extra: the host key is always
    verified, whatever the version of the ssh provider does by itself.

    :param ssh_conn_id: connection to the login node.
    """

    conn_name_attr = "ssh_conn_id"
    default_conn_name = "slurm"
    conn_type = "ssh"
    hook_name = "Slurm over SSH"

    def __init__(self, ssh_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.ssh_conn_id = ssh_conn_id
        self._ssh: SSHHook | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next command opens another."""
        if self._ssh is not None and self._ssh.client is not None:
            self._ssh.client.close()
        self._ssh = None

    def run(self, command: Command) -> Completed:
        """Run one command to its end.

        :raises ConnectionBroken: if the node cannot be reached, or the connection broke: the command
            may or may not have run then.
        :raises InvalidJob: if the connection is not safe, or the host shows another key.
        """
        try:
            transport = self._client().get_transport()
            if transport is None:
                raise ConnectionBroken(f"connection {self.ssh_conn_id!r}: closed")
            channel = transport.open_session(timeout=CONNECT_TIMEOUT)
            channel.settimeout(COMMAND_TIMEOUT)
            channel.exec_command(shlex.join(command.args))
            with channel.makefile("rb") as stdout, channel.makefile_stderr("rb") as stderr:
                _feed(channel, command.stdin)
                completed = Completed(0, stdout.read(), stderr.read())
            rc = channel.recv_exit_status()
        except paramiko.BadHostKeyException as error:
            raise _wrong_host_key(self.ssh_conn_id, error) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            raise ConnectionBroken(f"connection {self.ssh_conn_id!r}: {_words(error)}") from error
        if rc < 0:
            self.close()
            raise ConnectionBroken(f"connection {self.ssh_conn_id!r} broke while a command ran")
        return Completed(rc, completed.stdout, completed.stderr)

    def url(self, path: str) -> str:
        """Return the address of a file on the login node."""
        connection = self.get_connection(self.ssh_conn_id)
        user = f"{connection.login}@" if connection.login else ""
        return f"sftp://{user}{connection.host}:{connection.port or 22}{path}"

    def _client(self) -> paramiko.SSHClient:
        if self._ssh is None:
            connection = self.get_connection(self.ssh_conn_id)
            _check(self.ssh_conn_id, connection.extra_dejson)
            try:
                self._ssh = SSHHook(self.ssh_conn_id, conn_timeout=int(CONNECT_TIMEOUT))
            except (AirflowException, ValueError) as error:
                raise InvalidJob(f"connection {self.ssh_conn_id!r}: {error}") from error
        return self._ssh.get_conn()


class AsyncSlurmHook:
    """Does what :class:`SlurmHook` does without blocking the event loop; an async context manager."""

    def __init__(self, ssh_conn_id: str) -> None:
        self.ssh_conn_id = ssh_conn_id
        self._connection: asyncssh.SSHClientConnection | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; the next command opens another."""
        if self._connection is not None:
            self._connection.abort()
            await self._connection.wait_closed()
        self._connection = None

    async def run(self, command: Command) -> Completed:
        """Run one command to its end; errors as :meth:`SlurmHook.run` raises them."""
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT):
                if self._connection is None:
                    self._connection = await self._connect()
                done = await self._connection.run(
                    shlex.join(command.args), input=command.stdin, encoding=None, check=False
                )
        except asyncssh.HostKeyNotVerifiable as error:
            raise _wrong_host_key(self.ssh_conn_id, error) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            await self.close()
            raise ConnectionBroken(f"connection {self.ssh_conn_id!r}: {_words(error)}") from error
        if done.exit_status is None or done.exit_status < 0:
            await self.close()
            raise ConnectionBroken(f"connection {self.ssh_conn_id!r} broke while a command ran")
        return Completed(done.exit_status, _bytes(done.stdout), _bytes(done.stderr))

    async def _connect(self) -> asyncssh.SSHClientConnection:
        connection = await get_async_connection(self.ssh_conn_id)
        extra = await get_async_extra_dejson(connection)
        host_key = _check(self.ssh_conn_id, extra)
        options: dict[str, Any] = {"known_hosts": ([host_key], [], []), "keepalive_interval": 30}
        passphrase = extra.get("private_key_passphrase")
        if extra.get("private_key"):
            options["client_keys"] = [asyncssh.import_private_key(extra["private_key"], passphrase)]
        elif extra.get("key_file"):
            # Read off the loop: a home directory may be a slow network file system.
            options["client_keys"] = [
                await asyncio.to_thread(asyncssh.read_private_key, extra["key_file"], passphrase)
            ]
        if connection.password:
            options["password"] = connection.password
        return await asyncssh.connect(
            connection.host or "",
            connection.port or 22,
            username=connection.login or (),
            config=None,
            connect_timeout=CONNECT_TIMEOUT,
            login_timeout=CONNECT_TIMEOUT,
            keepalive_count_max=3,
            **options,
        )


def _check(conn_id: str, extra: dict[str, Any]) -> asyncssh.SSHKey:
    """Return the host key of a connection that will be verified.

    :raises InvalidJob: if the connection does not say which key, or asks not to look at it.
    """
    for option in ("no_host_key_check", "ignore_hostkey_verification", "allow_host_key_change"):
        if str(extra.get(option, False)).lower() == "true":
            raise InvalidJob(f"connection {conn_id!r} sets {option}: host keys are always verified here")
    text = str(extra.get("host_key") or "").strip()
    if not text:
        raise InvalidJob(
            f"connection {conn_id!r} has no host_key extra: put '<type> <key>' there, as ssh-keyscan "
            "prints it, after comparing it with the cluster's own"
        )
    parts = text.split()
    try:
        # The ssh provider reads a key without a type as RSA.
        return asyncssh.import_public_key(" ".join(parts[:2]) if len(parts) > 1 else f"ssh-rsa {parts[0]}")
    except asyncssh.KeyImportError as error:
        raise InvalidJob(f"connection {conn_id!r}: its host_key extra cannot be read: {error}") from error


def _wrong_host_key(conn_id: str, error: Exception) -> InvalidJob:
    return InvalidJob(
        f"connection {conn_id!r}: the host shows another key than the connection's host_key extra "
        f"({_words(error)}). If the machine was rebuilt, change the connection; if not, somebody is in between"
    )


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    try:
        channel.sendall(stdin)
        channel.shutdown_write()
    except OSError:
        # The command ended before it had read everything: its exit status tells why.
        return


def _bytes(output: bytes | str | None) -> bytes:
    return output.encode() if isinstance(output, str) else output or b""


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
