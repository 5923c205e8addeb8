"""Commands of an Airflow that runs on the login node itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from strandloop import local_commands
from strandloop.completed import Completed
from strandloop.errors import ConnectionBroken
from strandloop.hooks.slurm import AsyncSlurmHook, SlurmHook
from strandloop.slurm_commands import Command

BOTH = pytest.mark.parametrize("mode", ["sync", "async"])


def run(mode: str, *args: str, stdin: bytes = b"", conn_id: str | None = None) -> Completed:
    if mode == "sync":
        with SlurmHook(conn_id) as hook:
            return hook.run(Command(args, stdin))

    async def in_loop() -> Completed:
        async with AsyncSlurmHook(conn_id) as hook:
            return await hook.run(Command(args, stdin))

    return asyncio.run(in_loop())


@BOTH
@pytest.mark.parametrize("conn_id", [None, ""])
def test_an_answer_is_the_command_s_own(mode: str, conn_id: str | None) -> None:
    done = run(mode, "sh", "-c", "cat; echo oops >&2; exit 3", stdin=b"a\x00b\xff", conn_id=conn_id)
    assert done == Completed(3, b"a\x00b\xff", b"oops\n")
    assert run(mode, "true", stdin=b"x" * 1_000_000).rc == 0


@BOTH
def test_arguments_never_meet_a_shell(mode: str) -> None:
    words = ("two words", "$HOME", "a;b", "*", "'")
    assert run(mode, "printf", "%s\\n", *words).stdout.decode().splitlines() == list(words)


@BOTH
def test_airflow_s_environment_stays_with_airflow(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SECRET", "mysql://me:secret@host")
    monkeypatch.setenv("SLURM_CONF", "/etc/our-slurm.conf")
    text = run(mode, "env").stdout.decode()
    assert "secret" not in text and "AIRFLOW" not in text
    assert "SLURM_CONF=/etc/our-slurm.conf" in text and f"PATH={os.environ['PATH']}" in text


@BOTH
def test_a_command_that_does_not_end_is_ended(
    mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local_commands, "COMMAND_TIMEOUT", 0.3)
    with pytest.raises(ConnectionBroken, match="on this machine did not end within"):
        run(mode, "sh", "-c", 'echo $$ > "$0"; sleep 60', str(tmp_path / "pid"))
    asyncio.run(until(lambda: gone(int((tmp_path / "pid").read_text()))))


@BOTH
def test_an_answer_without_end_is_refused(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_commands, "OUTPUT_LIMIT_BYTES", 2**20)
    with pytest.raises(ConnectionBroken, match="more than 1 MiB"):
        run(mode, "head", "-c", "2000000", "/dev/zero")
    assert len(run(mode, "head", "-c", "1000000", "/dev/zero").stdout) == 1_000_000


@BOTH
def test_a_command_that_is_not_there_is_no_verdict(mode: str) -> None:
    with pytest.raises(ConnectionBroken, match=r"cannot be started: .*no-such-command"):
        run(mode, "no-such-command")
    with pytest.raises(ConnectionBroken, match="signal 9"):
        run(mode, "sh", "-c", "kill -9 $$")


def test_cancelling_one_wait_ends_its_command_and_no_other(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    async def test() -> None:
        async with AsyncSlurmHook(None) as cancelled, AsyncSlurmHook(None) as other:
            long = asyncio.create_task(
                cancelled.run(Command(("sh", "-c", 'echo $$ > "$0"; sleep 60', str(pid))))
            )
            beside = asyncio.create_task(other.run(Command(("sh", "-c", "sleep 0.3; echo whole"))))
            await until(lambda: pid.exists() and bool(pid.read_text()))
            long.cancel()
            with pytest.raises(asyncio.CancelledError):
                await long
            assert (await beside).stdout == b"whole\n"
            await until(lambda: gone(int(pid.read_text())))

    asyncio.run(test())


def test_few_commands_run_at_a_time(tmp_path: Path) -> None:
    # Each counts those that run beside it.
    script = 'mkdir "$0/$$"; sleep 0.1; ls "$0" | wc -l; rmdir "$0/$$"'

    async def test() -> list[Completed]:
        async def one() -> Completed:
            async with AsyncSlurmHook(None) as hook:
                return await hook.run(Command(("sh", "-c", script, str(tmp_path))))

        return await asyncio.gather(*(one() for _ in range(30)))

    counts = [int(done.stdout) for done in asyncio.run(test())]
    assert len(counts) == 30 and 1 <= max(counts) <= local_commands.COMMANDS_AT_ONCE


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
