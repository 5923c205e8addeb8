from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.hooks.slurm import AsyncSlurmHook, SlurmHook
from strandloop.slurm_commands import Command

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
        ({"host_key": "ssh-ed25519 nonsense"}, "cannot be read"),
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


def test_address_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, port=2222, host_key=KEY)
    assert SlurmHook().url("/fsx/j/1/job.log") == "sftp://ec2-user@127.0.0.1:2222/fsx/j/1/job.log"


@pytest.fixture
def unused_tcp_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
