"""Many waits on few connections, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from strandloop import ssh_connections, ssh_link
from strandloop.completed import Completed
from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.hooks.slurm import AsyncSlurmHook
from strandloop.slurm_commands import Command
from strandloop.ssh_login import SshLogin
from tests.plugins.strandloop.ssh_server import PlayedServer, ssh_server


def shell(script: str, stdin: bytes = b"") -> Command:
    return Command(("sh", "-c", script), stdin)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def outcome_of(awaitable: Awaitable[Completed]) -> Completed | Exception:
    try:
        return await awaitable
    except (ConnectionBroken, InvalidJob) as error:
        return error


@asynccontextmanager
async def hooks(number: int) -> AsyncIterator[list[AsyncSlurmHook]]:
    made = [AsyncSlurmHook("slurm") for _ in range(number)]
    try:
        yield made
    finally:
        for hook in made:
            await hook.close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedServer]:
    with ssh_server() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SLURM", server.connection)
        yield server


def test_an_answer_is_the_command_s_own(server: PlayedServer) -> None:
    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            done = await hook.run(shell("cat; echo oops >&2; exit 3", b"a\x00b\xff"))
            assert done == Completed(3, b"a\x00b\xff", b"oops\n")
            # One that does not read what it is given is none the worse.
            assert (await hook.run(shell("exit 0", b"x" * 1_000_000))).rc == 0

    asyncio.run(test())


def test_many_waits_share_few_connections_that_are_opened_one_after_another(server: PlayedServer) -> None:
    async def test() -> None:
        async with hooks(100) as waits:
            answers = await asyncio.gather(
                *(hook.run(shell(f"sleep 0.05; echo {number}")) for number, hook in enumerate(waits))
            )
            assert [int(answer.stdout) for answer in answers] == list(range(100))
        await until(lambda: not server.open)

    asyncio.run(test())
    assert server.counts.connections <= ssh_connections.CONNECTIONS
    assert server.counts.most_at_login == 1
    assert server.counts.most_sessions <= ssh_link.PLACES


def test_one_wait_needs_one_connection_and_one_look_at_airflow_s_connection_more(
    server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    read = SshLogin.read

    async def counted(conn_id: str) -> SshLogin:
        looks.append(conn_id)
        return await read(conn_id)

    monkeypatch.setattr(SshLogin, "read", counted)

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            for _ in range(20):
                await hook.run(shell("true"))

    asyncio.run(test())
    assert server.counts.connections == 1
    assert len(looks) == 2  # to join, and to log in


def test_the_last_to_leave_closes_the_connections(server: PlayedServer) -> None:
    async def test() -> None:
        async with AsyncSlurmHook("slurm") as first:
            async with AsyncSlurmHook("slurm") as second:
                await first.run(shell("true"))
                await second.run(shell("true"))
            assert (await first.run(shell("echo on"))).stdout == b"on\n"
            assert len(server.open) == 1
        await until(lambda: not server.open)
        async with AsyncSlurmHook("slurm") as third:
            assert (await third.run(shell("echo again"))).stdout == b"again\n"

    asyncio.run(test())
    assert server.counts.connections == 2


@pytest.mark.parametrize("max_sessions", [1, 3])
def test_a_server_with_fewer_sessions_is_asked_again_later(max_sessions: int, server: PlayedServer) -> None:
    server.max_sessions = max_sessions

    async def test() -> None:
        async with hooks(30) as waits:
            answers = await asyncio.gather(*(hook.run(shell("sleep 0.05; echo on")) for hook in waits))
            assert [answer.stdout for answer in answers] == [b"on\n"] * 30

    asyncio.run(test())
    assert server.counts.connections <= ssh_connections.CONNECTIONS


def test_a_server_that_runs_nothing_says_so(server: PlayedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.max_sessions = 0
    monkeypatch.setattr(ssh_connections, "REFUSED_PATIENCE", 0.3)

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            with pytest.raises(ConnectionBroken, match="refuses to run commands"):
                await hook.run(shell("true"))

    asyncio.run(test())


def test_cancelling_one_wait_leaves_the_others_alone(server: PlayedServer) -> None:
    async def test() -> None:
        async with hooks(3) as (cancelled, early, other):
            long = asyncio.create_task(cancelled.run(shell("sleep 60")))
            beside = asyncio.create_task(other.run(shell("read line; echo $line", b"whole\n")))
            await until(lambda: server.running >= 1)
            never_started = asyncio.create_task(early.run(shell("sleep 60")))
            await asyncio.sleep(0)
            for task in (long, never_started):
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert (await beside).stdout == b"whole\n"
            # The cancelled command is gone from the server, and its place is free again.
            await until(lambda: server.running == 0)
            answers = await asyncio.gather(*(other.run(shell("echo on")) for _ in range(8)))
            assert [answer.stdout for answer in answers] == [b"on\n"] * 8

    asyncio.run(test())
    assert server.counts.connections == 1


def test_waiting_for_a_place_is_no_time_out(server: PlayedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_connections, "CONNECTIONS", 1)
    monkeypatch.setattr(ssh_link, "COMMAND_TIMEOUT", 1.0)

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            answers = await asyncio.gather(*(hook.run(shell("sleep 0.3; echo on")) for _ in range(48)))
            assert [answer.stdout for answer in answers] == [b"on\n"] * 48

    asyncio.run(test())


def test_a_command_that_does_not_end_is_ended_alone(
    server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_link, "COMMAND_TIMEOUT", 0.5)

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            endless = asyncio.create_task(hook.run(shell("sleep 60")))
            while not endless.done():
                assert (await hook.run(shell("echo on"))).stdout == b"on\n"
            with pytest.raises(ConnectionBroken, match="did not end within"):
                await endless
            await until(lambda: server.running == 0)

    asyncio.run(test())
    assert server.counts.connections == 1


def test_a_connection_whose_commands_cannot_be_ended_is_replaced(
    server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a shared file system that hangs: the commands stay, and must not take all places."""
    monkeypatch.setattr(ssh_link, "COMMAND_TIMEOUT", 0.5)
    monkeypatch.setattr(ssh_connections, "CONNECTIONS", 1)
    server.deaf = True

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            stuck = await asyncio.gather(
                *(outcome_of(hook.run(shell("sleep 1.5"))) for _ in range(ssh_link.PLACES))
            )
            assert all(isinstance(answer, ConnectionBroken) for answer in stuck)
            assert (await hook.run(shell("echo on"))).stdout == b"on\n"
            await until(lambda: len(server.open) == 1)

    asyncio.run(test())
    assert server.counts.connections == 2


def test_a_connection_whose_sessions_are_all_held_by_cancelled_commands_is_replaced(
    server: PlayedServer,
) -> None:
    server.deaf, server.max_sessions = True, 2

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            await hook.run(shell("true"))
            held = [asyncio.create_task(hook.run(shell("sleep 1.5"))) for _ in range(2)]
            await until(lambda: server.running == 2)
            for task in held:
                task.cancel()
            assert (await hook.run(shell("echo on"))).stdout == b"on\n"

    asyncio.run(test())
    assert server.counts.connections == 2


def test_an_answer_without_end_is_cut(server: PlayedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_link, "OUTPUT_LIMIT_BYTES", 2**20)

    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            with pytest.raises(ConnectionBroken, match="more than 1 MiB"):
                await hook.run(shell("head -c 2000000 /dev/zero"))
            assert len((await hook.run(shell("head -c 1000000 /dev/zero"))).stdout) == 1_000_000

    asyncio.run(test())
    assert server.counts.connections == 1


def test_a_connection_that_was_cut_is_opened_again(server: PlayedServer) -> None:
    async def test() -> None:
        async with hooks(4) as waits:
            running = [asyncio.create_task(outcome_of(hook.run(shell("sleep 60")))) for hook in waits]
            await until(lambda: server.running == 4)
            server.drop_connections()
            for outcome in await asyncio.gather(*running):
                assert isinstance(outcome, ConnectionBroken) and "'slurm'" in str(outcome)

            async def answers() -> bool:
                return all(
                    isinstance(answer, Completed)
                    for answer in [await outcome_of(hook.run(shell("true"))) for hook in waits]
                )

            async with asyncio.timeout(20):
                while not await answers():
                    await asyncio.sleep(0.05)

    asyncio.run(test())
    assert server.counts.connections == 2


def test_a_host_that_refuses_is_tried_by_one_and_not_by_all(
    server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_connections, "FIRST_PAUSE", 0.4)
    server.silent = True

    async def test() -> None:
        async with hooks(100) as waits:
            loop = asyncio.get_running_loop()
            started = loop.time()
            outcomes = await asyncio.gather(*(outcome_of(hook.run(shell("true"))) for hook in waits))
            assert all(isinstance(outcome, ConnectionBroken) for outcome in outcomes)
            assert server.counts.connections == 1
            # The pauses grow, and end when the host lets us in again.
            while server.counts.connections < 3:
                assert isinstance(await outcome_of(waits[0].run(shell("true"))), ConnectionBroken)
                await asyncio.sleep(0.01)
            assert loop.time() - started >= 0.2 + 0.4
            server.silent = False
            async with asyncio.timeout(20):
                while isinstance(await outcome_of(waits[0].run(shell("true"))), Exception):
                    await asyncio.sleep(0.05)

    asyncio.run(test())
    assert server.counts.most_at_login == 1


def test_another_host_key_is_refused_for_all_until_the_connection_has_it(
    server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with hooks(10) as waits:
            assert all([isinstance(await outcome_of(hook.run(shell("true"))), Completed) for hook in waits])
            server.stop()
            with ssh_server(port=server.port, client_key=server.client_key) as impostor:
                # What was cut may show once; after that everybody hears of the key.
                async with asyncio.timeout(20):
                    while isinstance(await outcome_of(waits[0].run(shell("true"))), ConnectionBroken):
                        await asyncio.sleep(0.01)
                for outcome in await asyncio.gather(*(outcome_of(hook.run(shell("true"))) for hook in waits)):
                    assert isinstance(outcome, InvalidJob) and "another key" in str(outcome)
                assert impostor.counts.commands == 0
                monkeypatch.setenv("AIRFLOW_CONN_SLURM", impostor.connection)
                async with asyncio.timeout(20):
                    while isinstance(await outcome_of(waits[0].run(shell("true"))), Exception):
                        await asyncio.sleep(0.05)
                assert isinstance(await outcome_of(waits[9].run(shell("true"))), Completed)
                for hook in waits:
                    await hook.close()

    asyncio.run(test())


def test_a_connection_that_leads_elsewhere_is_followed_by_the_next_wait(
    server: PlayedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        with ssh_server() as rebuilt:
            async with AsyncSlurmHook("slurm") as first:
                running = asyncio.create_task(first.run(shell("sleep 0.5; echo done")))
                await until(lambda: server.running == 1)
                monkeypatch.setenv("AIRFLOW_CONN_SLURM", rebuilt.connection)
                async with AsyncSlurmHook("slurm") as second:
                    await second.run(shell("true"))
                    await first.run(shell("true"))
                    assert rebuilt.counts.commands == 2
                    # What runs where the connection led before comes to its end there.
                    assert (await running).stdout == b"done\n"
                    await until(lambda: not server.open)

    asyncio.run(test())


def test_a_connection_that_airflow_does_not_give_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SLURM", raising=False)

    async def test() -> None:
        async with AsyncSlurmHook("slurm_of_nobody") as hook:
            with pytest.raises(ConnectionBroken, match="Airflow does not give it"):
                await hook.run(shell("true"))

    asyncio.run(test())


def test_each_event_loop_has_connections_of_its_own(server: PlayedServer) -> None:
    async def test() -> None:
        async with AsyncSlurmHook("slurm") as hook:
            await hook.run(shell("true"))

    for _ in range(2):
        asyncio.run(test())
    assert server.counts.connections == 2
