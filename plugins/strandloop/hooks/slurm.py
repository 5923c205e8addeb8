"""Slurm's login node: one client that blocks, for operators, and one that does not, for triggers."""

from __future__ import annotations

import shlex
from base64 import b64decode
from typing import Self
from urllib.parse import quote

import paramiko
from airflow.providers.ssh.hooks.ssh import SSHHook
from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException

from strandloop.completed import COMMAND_TIMEOUT, OUTPUT_LIMIT_BYTES, Completed
from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.local_commands import run_here, run_here_in_loop
from strandloop.slurm_commands import Command
from strandloop.ssh_address import SshAddress
from strandloop.ssh_connections import CONNECT_TIMEOUT, SharedConnections
from strandloop.ssh_login import verified_host_key, wrong_host_key


class SlurmHook(BaseHook):
    """Runs commands on a cluster's login node; a context manager that holds one connection.

    The connection has type ``ssh`` and must carry the ``host_key`` extra: the host key is always
    verified, whatever the version of the ssh provider does by itself.

    :param ssh_conn_id: connection to the login node, or the address of one, see
        :mod:`strandloop.ssh_address`; None or empty where Airflow runs on the login node itself, and commands
        run on this machine.
    """

    conn_name_attr = "ssh_conn_id"
    default_conn_name = "slurm"
    conn_type = "ssh"
    hook_name = "Slurm over SSH"

    def __init__(self, ssh_conn_id: str | None = default_conn_name) -> None:
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
        if not self.ssh_conn_id:
            return run_here(command)
        try:
            return self._run_over_ssh(self._client(self.ssh_conn_id), command)
        except paramiko.BadHostKeyException as error:
            raise wrong_host_key(self.ssh_conn_id, error) from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            raise self._broken(str(error) or type(error).__name__) from error

    def url(self, path: str) -> str:
        """Return the address of a file on the login node."""
        if not self.ssh_conn_id:
            return f"file://{quote(path)}"
        address = SshAddress.parse(self.ssh_conn_id)
        connection = self.get_connection(address.conn_id)
        login = address.user or connection.login
        user = f"{login}@" if login else ""
        return f"sftp://{user}{address.host or connection.host}:{connection.port or 22}{path}"

    def _client(self, conn_id: str) -> paramiko.SSHClient:
        if self._ssh is None:
            address = SshAddress.parse(conn_id)
            extra = address.extra(self.get_connection(address.conn_id).extra_dejson)
            host_key = verified_host_key(address.conn_id, extra)
            try:
                ssh = SSHHook(
                    address.conn_id,
                    remote_host=address.host,
                    username=address.user or None,
                    conn_timeout=int(CONNECT_TIMEOUT),
                )
                # The provider takes a host's key from the connection only.
                kind, key = host_key.split()
                ssh.host_key = paramiko.PKey.from_type_string(kind, b64decode(key))
                ssh.no_host_key_check = False
            except (AirflowException, ValueError, paramiko.SSHException) as error:
                raise InvalidJob(f"{address.in_words}: {error}") from error
            self._ssh = ssh
        return self._ssh.get_conn()

    def _run_over_ssh(self, client: paramiko.SSHClient, command: Command) -> Completed:
        transport = client.get_transport()
        if transport is None:
            raise self._broken("closed")
        channel = transport.open_session(timeout=CONNECT_TIMEOUT)
        channel.settimeout(COMMAND_TIMEOUT)
        channel.exec_command(shlex.join(command.args))
        with channel.makefile("rb") as stdout, channel.makefile_stderr("rb") as stderr:
            _feed(channel, command.stdin)
            answer, complaint = stdout.read(OUTPUT_LIMIT_BYTES + 1), stderr.read(OUTPUT_LIMIT_BYTES + 1)
        if max(len(answer), len(complaint)) > OUTPUT_LIMIT_BYTES:
            self.close()
            raise self._broken(f"a command answered more than {OUTPUT_LIMIT_BYTES / 2**20:.0f} MiB")
        rc = channel.recv_exit_status()
        if rc < 0:
            self.close()
            raise self._broken("it broke while a command ran")
        return Completed(rc, answer, complaint)

    def _broken(self, words: str) -> ConnectionBroken:
        return ConnectionBroken(f"{SshAddress.parse(str(self.ssh_conn_id)).in_words}: {words}")


class AsyncSlurmHook:
    """Does what :class:`SlurmHook` does without blocking the event loop; an async context manager.

    Its connections are shared with all the others of this event loop; see
    :mod:`strandloop.ssh_connections`.
    """

    def __init__(self, ssh_conn_id: str | None) -> None:
        self.ssh_conn_id = ssh_conn_id
        self._connections: SharedConnections | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Be done with the connections; the next command asks for them anew."""
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.leave()

    async def run(self, command: Command) -> Completed:
        """Run one command to its end; errors as :meth:`SlurmHook.run` raises them."""
        if not self.ssh_conn_id:
            return await run_here_in_loop(command)
        if self._connections is None:
            self._connections = await SharedConnections.join(self.ssh_conn_id)
        return await self._connections.run(command)


def _feed(channel: paramiko.Channel, stdin: bytes) -> None:
    try:
        channel.sendall(stdin)
        channel.shutdown_write()
    except OSError:
        # The command ended before it had read everything: its exit status tells why.
        return
