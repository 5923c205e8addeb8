from __future__ import annotations

import asyncio
import inspect
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
from airflow._shared.module_loading import import_string

from strandloop import ssh_connections
from strandloop.job_record import JobRecord, iso_utc
from strandloop.slurm_watch import Outcome, WatchPlan
from strandloop.triggers import slurm as triggers
from strandloop.triggers.slurm import SlurmJobTrigger
from tests.plugins.strandloop.event_loop import TURN_SECONDS, longest_turn_seconds
from tests.plugins.strandloop.ssh_server import ssh_server

NAME = "c68145c3-3aba-4e10-971b-e4b6047cb1cf"
RECORD = JobRecord("slurm", "7", NAME, "PENDING", iso_utc(0), 1, cluster="c@t", job_dir="/fsx/j/1")
NOT_DEFAULT: dict[str, Any] = {
    "ssh_conn_id": "slurm_b",
    "cancel_on_kill": False,
    "record": RECORD.to_xcom(),
    "reader": "r-1",
    "poll_interval_seconds": 0.5,
    "queue_timeout_seconds": 1.0,
    "run_timeout_seconds": 2.0,
    "unknown_timeout_seconds": 3.0,
}
# What the version of 2026-11-23 stored: its deferred tasks may be waited for by this version.
OLD: dict[str, Any] = {
    "ssh_conn_id": "slurm",
    "cancel_on_kill": True,
    "record": {
        "system": "slurm",
        "id": "7",
        "name": "c68145c3-3aba-4e10-971b-e4b6047cb1cf",
        "state": "PENDING",
        "submitted_at": "2026-11-23T10:03:42Z",
        "attempt": 1,
        "nodes": 0,
        "started_at": None,
        "ended_at": None,
        "cluster": "c@t",
        "job_dir": "/fsx/j/1",
    },
    "reader": "c68145c3-1",
    "poll_interval_seconds": 15.0,
    "queue_timeout_seconds": None,
    "run_timeout_seconds": None,
    "unknown_timeout_seconds": 600.0,
}

# A cluster whose answers are files; scancel takes the job out of the queue after a look more.
PROGRAMS = {
    "scontrol": """case "$*" in
        *config*) printf 'BOOT_TIME = t\\nClusterName = c\\n' ;;
        *) cat "$dir/jobs" ;;
    esac""",
    "squeue": """cat "$dir/queue" 2>/dev/null; [ ! -e "$dir/cancelled" ] || rm -f "$dir/queue"; exit 0""",
    "scancel": """touch "$dir/cancelled" """,
    "sacct": """echo "Slurm accounting storage is disabled"; exit 1""",
}
BOTH = pytest.mark.parametrize("transport", ["local", "ssh"])


@dataclass(frozen=True)
class Cluster:
    """A login node on this machine; ``conn_id`` leads there."""

    folder: Path
    conn_id: str | None

    def job(self, state: str, **fields: str) -> str:
        more = "".join(f"{name}={value} " for name, value in fields.items())
        return (
            f"JobId=7 {more}JobName={NAME} JobState={state} Reason=None Restarts=0 ExitCode=0:0 "
            "StartTime=2026-11-21T10:04:09 EndTime=2026-11-21T10:05:00 NodeList=n1 NumNodes=1 NumCPUs=1\n"
        )

    def trigger(self, record: JobRecord = RECORD, *, reader: str = "r-1", **more: Any) -> SlurmJobTrigger:
        record = replace(record, job_dir=str(self.folder / "job"))
        plan = WatchPlan(record.to_xcom(), reader, poll_interval_seconds=0.05)
        return SlurmJobTrigger(self.conn_id, **plan.to_kwargs(), **more)


@pytest.fixture
def cluster(tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for folder in ("bin", "job"):
        (tmp_path / folder).mkdir()
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\ndir={tmp_path}\n{text}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    if transport == "local":
        yield Cluster(tmp_path, None)
        return
    with ssh_server() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SLURM", server.connection)
        yield Cluster(tmp_path, "slurm")


async def outcomes(trigger: SlurmJobTrigger) -> list[Outcome]:
    return [Outcome.from_event(event.payload) async for event in trigger.run()]


def test_it_serialises_to_itself() -> None:
    parameters = [
        *inspect.signature(SlurmJobTrigger).parameters,
        *(field.name for field in fields(WatchPlan)),
    ]
    assert list(NOT_DEFAULT) == [name for name in parameters if name != "plan"]
    path, kwargs = SlurmJobTrigger(**NOT_DEFAULT).serialize()
    assert kwargs == NOT_DEFAULT
    assert import_string(path) is SlurmJobTrigger
    assert import_string(path)(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)
    local = SlurmJobTrigger(**{**NOT_DEFAULT, "ssh_conn_id": None})
    assert SlurmJobTrigger(**local.serialize()[1]).serialize() == local.serialize()


@BOTH
def test_arguments_of_other_versions_are_accepted(cluster: Cluster) -> None:
    old = {**OLD, "ssh_conn_id": cluster.conn_id, "record": {**OLD["record"], "job_dir": str(cluster.folder)}}
    (cluster.folder / "jobs").write_text(cluster.job("COMPLETED"))
    (cluster.folder / "began").write_text("7 - 0\n")
    (outcome,) = asyncio.run(outcomes(SlurmJobTrigger(**old)))
    assert outcome.state == "SUCCEEDED"
    assert SlurmJobTrigger(**OLD, of_a_later_version=1).serialize() == SlurmJobTrigger(**OLD).serialize()


@BOTH
def test_it_fires_once_with_all_that_the_task_needs(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    (cluster.folder / "jobs").write_text(cluster.job("FAILED").replace("ExitCode=0:0", "ExitCode=3:0"))
    (cluster.folder / "job" / "job.log").write_text("one\ntwo")
    (outcome,) = asyncio.run(outcomes(cluster.trigger()))
    assert (outcome.state, outcome.exit_code, outcome.last_lines) == ("FAILED", 3, ("one", "two"))
    assert (cluster.folder / "job" / "verdict.json").exists()
    assert capsys.readouterr().out.count("] two ") == 1


def test_a_long_turn_of_the_event_loop_is_noticed() -> None:
    async def busy() -> None:
        end = time.thread_time() + 1.5 * TURN_SECONDS  # what no trigger may do
        while time.thread_time() < end:
            pass
        await asyncio.sleep(0)

    assert longest_turn_seconds(busy()) > TURN_SECONDS


async def succeeds(trigger: SlurmJobTrigger) -> None:
    (outcome,) = await outcomes(trigger)
    assert outcome.state == "SUCCEEDED"


@BOTH
def test_the_event_loop_is_not_blocked_by_a_large_log(cluster: Cluster) -> None:
    (cluster.folder / "jobs").write_text(cluster.job("COMPLETED"))
    (cluster.folder / "job" / "began").write_text("7 - 0\n")
    log = b"\n" * 30_000 + b"x" * 200_000 + b"\n" + "ä\r".encode() * 40_000 + b"\xff\n" * 5_000
    (cluster.folder / "job" / "job.log").write_bytes(log)
    assert longest_turn_seconds(succeeds(cluster.trigger())) < TURN_SECONDS


@BOTH
def test_the_event_loop_is_not_blocked_by_a_large_array(cluster: Cluster) -> None:
    lines = [cluster.job("COMPLETED", ArrayJobId="7", ArrayTaskId=str(index)) for index in range(3_000)]
    (cluster.folder / "jobs").write_text("".join(lines))
    begun = "".join(f"7 {index} 0\n" for index in range(3_000))
    (cluster.folder / "job" / "began.0").write_text(begun)
    trigger = cluster.trigger(replace(RECORD, array="0-2999"))
    assert longest_turn_seconds(succeeds(trigger)) < TURN_SECONDS


@BOTH
def test_the_event_loop_is_not_blocked_by_a_slow_answer(cluster: Cluster) -> None:
    (cluster.folder / "jobs").write_text(cluster.job("COMPLETED"))
    (cluster.folder / "job" / "began").write_text("7 - 0\n")
    asked, answer = cluster.folder / "asked", cluster.folder / "answer"
    # The controller answers only after something else has had the event loop.
    program = cluster.folder / "bin" / "scontrol"
    wait = f"touch {asked}; until [ -e {answer} ]; do sleep 0.01; done"
    program.write_text(program.read_text().replace("\n", f"\n{wait}\n", 1))

    async def answers_when_asked() -> None:
        while not asked.exists():
            await asyncio.sleep(0.01)
        answer.touch()

    async def both() -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(succeeds(cluster.trigger()), answers_when_asked())

    asyncio.run(both())


@BOTH
@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_a_person_ends_the_job_and_a_restart_of_the_triggerer_does_not(
    cluster: Cluster, cancel_on_kill: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    (cluster.folder / "jobs").write_text(cluster.job("RUNNING"))
    (cluster.folder / "queue").write_text("7|RUNNING|None\n")
    trigger = cluster.trigger(cancel_on_kill=cancel_on_kill)

    async def restarted() -> None:
        running = asyncio.create_task(outcomes(trigger))
        while "is RUNNING" not in capsys.readouterr().out:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await trigger.cleanup()

    asyncio.run(restarted())
    assert not (cluster.folder / "cancelled").exists()
    asyncio.run(trigger.on_kill())
    assert (cluster.folder / "cancelled").exists() is cancel_on_kill
    assert (cluster.folder / "queue").exists() is not cancel_on_kill
    assert ("was cancelled " in capsys.readouterr().out) is cancel_on_kill


@BOTH
def test_on_kill_is_over_before_the_triggerer_loses_patience(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(triggers, "KILL_WAIT", 1.0)
    # A controller that does not answer: no look at the queue comes to its end.
    hangs = cluster.folder / "hangs"
    hangs.touch()
    hang = f"#!/bin/sh\nwhile [ -e {hangs} ]; do sleep 0.05; done\n"
    (cluster.folder / "bin" / "squeue").write_text(hang)
    try:
        asyncio.run(asyncio.wait_for(cluster.trigger().on_kill(), 60))  # it would hang for ever
    finally:
        hangs.unlink()
    assert (cluster.folder / "cancelled").exists()
    assert "was cancelled, and is still ending" in capsys.readouterr().out


def test_on_kill_leaves_time_to_try_a_host_again_that_was_away() -> None:
    assert ssh_connections.LONGEST_PAUSE < triggers.KILL_WAIT < 30
