from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from strandloop.completed import Completed
from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.hooks.slurm import AsyncSlurmHook, SlurmHook
from strandloop.slurm_commands import Command
from strandloop.ssh_login import SshLogin
from tests.plugins.strandloop.ssh_server import ssh_server

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3Pj8v1l9wMSbzkz0o2rm4g4mXq5JZ4Xw3P7hQ0n0aB"


def connect(monkeypatch: pytest.MonkeyPatch, port: int = 9, **extra: Any) -> None:
    connection = {"conn_type": "ssh", "host": "127.0.0.1", "port": port, "login": "ec2-user", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SLURM", json.dumps(connection))


async def run_in_loop() -> None:
    async with AsyncSlurmHook("slurm") as hook:
        await hook.run(Command(("true",)))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({}, "has no host_key extra"),
        ({"host_key": KEY, "no_host_key_check": True}, "no_host_key_check"),
        ({"host_key": KEY, "no_host_key_check": "true"}, "no_host_key_check"),
        ({"host_key": KEY, "allow_host_key_change": True}, "allow_host_key_change"),
        ({"host_key": KEY, "ignore_hostkey_verification": True}, "ignore_hostkey_verification"),
        ({"host_key": "ssh-ed25519 nonsense"}, "host_key extra cannot be read"),
    ],
)
def test_a_connection_that_does_not_verify_the_host_is_refused(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], words: str
) -> None:
    connect(monkeypatch, **extra)
    with pytest.raises(InvalidJob, match=words):
        SlurmHook().run(Command(("true",)))
    with pytest.raises(InvalidJob, match=words):
        asyncio.run(run_in_loop())


def test_a_host_that_does_not_answer_is_a_broken_connection(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    connect(monkeypatch, port=unused_tcp_port, host_key=KEY)
    with pytest.raises(ConnectionBroken, match="'slurm'"):
        asyncio.run(run_in_loop())


def test_a_private_key_that_cannot_be_read_is_the_connection_s_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connect(monkeypatch, host_key=KEY, private_key="nonsense")
    with pytest.raises(InvalidJob, match="private_key extra cannot be read"):
        asyncio.run(run_in_loop())
    (tmp_path / "key").write_text("nonsense")
    connect(monkeypatch, host_key=KEY, key_file=str(tmp_path / "key"))
    with pytest.raises(InvalidJob, match=r"key file .*/key cannot be read"):
        asyncio.run(run_in_loop())


def test_both_clients_log_in_and_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    command = Command(("sh", "-c", "cat; printf '%s' \"$1\" >&2; exit 3", "sh", "$HOME 'x'"), b"in\x00put")

    async def in_loop() -> Completed:
        async with AsyncSlurmHook("slurm") as hook:
            return await hook.run(command)

    with ssh_server() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SLURM", server.connection)
        with SlurmHook() as hook:
            assert hook.run(command) == Completed(3, b"in\x00put", b"$HOME 'x'")
            assert asyncio.run(in_loop()) == Completed(3, b"in\x00put", b"$HOME 'x'")


def test_secrets_of_a_login_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, host_key=KEY, private_key="TOP", private_key_passphrase="SECRET")
    text = repr(asyncio.run(SshLogin.read("slurm")))
    assert "ec2-user" in text and "TOP" not in text and "SECRET" not in text


def test_address_of_a_log_on_this_machine() -> None:
    assert SlurmHook(None).url("/fsx/my jobs/1/job.log") == "file:///fsx/my%20jobs/1/job.log"


def test_address_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, port=2222, host_key=KEY)
    assert SlurmHook().url("/fsx/j/1/job.log") == "sftp://ec2-user@127.0.0.1:2222/fsx/j/1/job.log"


@pytest.fixture
def unused_tcp_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
