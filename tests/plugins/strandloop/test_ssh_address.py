"""The way into a cluster that a DAG made: the key from a connection, host and host key from the address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import asyncssh
import pytest
from tenacity import wait_none

from strandloop.errors import InvalidJob
from strandloop.hooks.slurm import AsyncSlurmHook, SlurmHook
from strandloop.slurm_commands import Command
from strandloop.ssh_address import SshAddress
from tests.plugins.strandloop.ssh_server import USER, PlayedServer, ssh_server

ECHO = Command(("sh", "-c", "cat; echo $0", "over ssh"), b"hello ")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedServer]:
    """A head node; the connection ``cluster_key`` knows the private key and nothing of it but the port."""
    with ssh_server() as server:
        extra = {"private_key": server.client_key.export_private_key().decode()}
        connection = {"conn_type": "ssh", "port": server.port, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_CLUSTER_KEY", json.dumps(connection))
        yield server


def run_blocking(address: str) -> bytes:
    with SlurmHook(address) as hook:
        return hook.run(ECHO).stdout


def run_in_loop(address: str) -> bytes:
    async def run() -> bytes:
        async with AsyncSlurmHook(address) as hook:
            return (await hook.run(ECHO)).stdout

    return asyncio.run(run())


def address_with(key: asyncssh.SSHKey) -> str:
    text = " ".join(key.export_public_key().decode().split()[:2])
    return str(SshAddress("cluster_key", host="127.0.0.1", user=USER, host_key=text))


@pytest.mark.parametrize("run", [run_blocking, run_in_loop])
def test_the_key_comes_from_the_connection_and_the_host_from_the_address(
    server: PlayedServer, run: Callable[[str], bytes]
) -> None:
    assert run(address_with(server.host_key)) == b"hello over ssh\n"


@pytest.mark.parametrize("run", [run_blocking, run_in_loop])
def test_another_host_key_is_refused(
    server: PlayedServer, run: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("wait_fixed", "wait_random"):  # the provider tries three times
        monkeypatch.setattr(f"airflow.providers.ssh.hooks.ssh.{pause}", lambda *_: wait_none())
    address = address_with(asyncssh.generate_private_key("ssh-ed25519"))
    with pytest.raises(InvalidJob, match="another key than the head node printed on its console"):
        run(address)
    assert server.counts.commands == 0


def test_links_lead_to_the_address(server: PlayedServer) -> None:
    url = SlurmHook(address_with(server.host_key)).url("/fsx/job.log")
    assert url == f"sftp://{USER}@127.0.0.1:{server.port}/fsx/job.log"


def test_an_address_survives_being_text() -> None:
    address = SshAddress("key", host="10.0.0.7", user="ec2-user", host_key="ssh-ed25519 AAAA/+x==")
    assert SshAddress.parse(str(address)) == address
    assert SshAddress.parse("slurm") == SshAddress("slurm")
    assert str(SshAddress("slurm")) == "slurm"


@pytest.mark.parametrize("text", ["key?host=10.0.0.7&user=x", "?host=h&user=u&host_key=k", "key?", "key?a=1"])
def test_a_host_without_its_key_is_no_address(text: str) -> None:
    with pytest.raises(InvalidJob, match="no address of a login node"):
        SshAddress.parse(text)
