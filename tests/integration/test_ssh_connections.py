"""Shared SSH connections against OpenSSH's own sshd, with its default limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from strandloop import ssh_link
from strandloop.errors import ConnectionBroken
from strandloop.hooks.slurm import AsyncSlurmHook
from strandloop.slurm_commands import Command
from strandloop.ssh_connections import CONNECTIONS

pytestmark = pytest.mark.integration


def shell(script: str) -> Command:
    return Command(("sh", "-c", script))


def test_many_waits_stay_below_sshd_s_limits(stack: Mapping[str, str]) -> None:
    async def one(number: int) -> bytes:
        async with AsyncSlurmHook("slurm") as hook:
            return (await hook.run(shell(f"sleep 0.2; echo {number}"))).stdout

    async def test() -> list[bytes]:
        return await asyncio.gather(*(one(number) for number in range(1000)))

    assert [int(answer) for answer in asyncio.run(test())] == list(range(1000))


def test_commands_that_cannot_be_ended_do_not_hold_all_places(
    stack: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """sshd does not pass signals on in sessions of root, and then keeps a cancelled command's session."""
    monkeypatch.setattr(ssh_link, "COMMAND_TIMEOUT", 2.0)

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            long = [
                asyncio.create_task(hook.run(shell("sleep 20"))) for _ in range(CONNECTIONS * ssh_link.PLACES)
            ]
            await hook.run(shell("true"))  # behind all of them: some have timed out by then
            late = [task for task in long if not task.done()]
            for task in late:
                task.cancel()
            ended = await asyncio.gather(*long, return_exceptions=True)
            assert {type(end) for end in ended} <= {ConnectionBroken, asyncio.CancelledError}
            async with asyncio.timeout(10):
                answers = await asyncio.gather(*(hook.run(shell("echo on")) for _ in range(100)))
            assert {answer.stdout for answer in answers} == {b"on\n"}

    asyncio.run(test())
