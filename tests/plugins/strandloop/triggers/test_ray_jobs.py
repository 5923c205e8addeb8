from __future__ import annotations

import asyncio
import inspect
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetXCom, SetXCom, XComResult

from strandloop.ray_job import Outcome
from strandloop.triggers.ray_jobs import RayJobTrigger
from tests.plugins.strandloop.event_loop import TURN_SECONDS, longest_turn_seconds

NOT_DEFAULT: dict[str, Any] = {
    "submission_id": "job-1",
    "ray_conn_id": "ray",
    "poll_interval_seconds": 0.01,
    "unreachable_timeout_seconds": 7.0,
    "deadline": 1_234.5,
    "stop_at_deadline": False,
    "cancel_on_kill": False,
    "queue_timeout_seconds": 5.0,
    "run_timeout_seconds": 6.0,
    "bookmark": {"submission_id": "job-1", "submitted_ms": 1, "log_bytes": 2, "running_since": None},
}
# What HEAD of 2026-11-24 stored: its deferred tasks may be waited for by this version.
OLD: dict[str, Any] = {
    "submission_id": "job-1",
    "ray_conn_id": "ray",
    "poll_interval_seconds": 0.01,
    "unreachable_timeout_seconds": 5.0,
    "deadline": 1.0,
    "stop_at_deadline": True,
    "cancel_on_kill": True,
}


def trigger(**kwargs: Any) -> RayJobTrigger:
    return RayJobTrigger(
        "job-1",
        **{"ray_conn_id": "ray", "poll_interval_seconds": 0.01, "unreachable_timeout_seconds": 5, **kwargs},
    )


class Triggerer:
    """The triggerer's side of the messages that a trigger may send; it outlives the trigger."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    async def asend(self, message: Any) -> Any:
        match message:
            case SetXCom():
                self.xcoms[message.key] = message.value
            case GetXCom():
                return XComResult(key=message.key, value=self.xcoms.get(message.key))
        return None


@pytest.fixture
def triggerer(monkeypatch: pytest.MonkeyPatch) -> Triggerer:
    """One whose triggers need not wait for the end of the process that deferred."""
    monkeypatch.setattr("strandloop.trigger_grace.GRACE_SECONDS", 0.0)
    triggerer = Triggerer()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", triggerer, raising=False)
    return triggerer


def running_in_triggerer(**kwargs: Any) -> RayJobTrigger:
    waiting = trigger(**kwargs)
    waiting.task_instance = SimpleNamespace(  # type: ignore[assignment]
        dag_id="daily", task_id="embed", run_id="run-1", map_index=-1
    )
    return waiting


async def events(waiting: RayJobTrigger) -> list[Outcome]:
    return [Outcome.from_event(event.payload) async for event in waiting.run()]


def test_it_serialises_to_itself() -> None:
    assert [*NOT_DEFAULT, "later"] == list(inspect.signature(RayJobTrigger).parameters)
    path, kwargs = RayJobTrigger(**NOT_DEFAULT).serialize()
    assert kwargs == NOT_DEFAULT
    assert import_string(path) is RayJobTrigger
    assert import_string(path)(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


def test_arguments_of_other_versions_are_accepted(served_head: Any) -> None:
    served_head.jobs = {"job-1": ["RUNNING"]}
    (outcome,) = asyncio.run(events(RayJobTrigger(**OLD)))
    assert (outcome.end, served_head.jobs) == ("deadline", {"job-1": ["STOPPED"]})
    assert RayJobTrigger(**OLD, argument_of_a_later_version=1).serialize() == RayJobTrigger(**OLD).serialize()


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "STOPPED"])
def test_it_fires_once_with_all_that_the_task_needs(served_head: Any, status: str) -> None:
    served_head.jobs = {"job-1": ["PENDING", "RUNNING", status]}
    (outcome,) = asyncio.run(events(trigger()))
    assert outcome.end == "ended"
    assert outcome.job is not None
    assert outcome.job.status == status
    assert outcome.last_lines == ("starts",)


def test_a_head_that_forgot_the_job_ends_the_waiting(served_head: Any) -> None:
    (outcome,) = asyncio.run(events(trigger()))
    assert outcome.end == "lost"


def test_the_deadline_holds_inside_the_trigger(served_head: Any) -> None:
    served_head.jobs = {"job-1": ["RUNNING"]}
    (outcome,) = asyncio.run(events(trigger(deadline=1.0)))
    assert outcome.end == "deadline"
    assert served_head.jobs == {"job-1": ["STOPPED"]}


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_a_person_ends_the_job_and_a_restart_of_the_triggerer_does_not(
    served_head: Any, cancel_on_kill: bool
) -> None:
    served_head.jobs = {"job-1": ["RUNNING"]}
    waiting = trigger(cancel_on_kill=cancel_on_kill)
    asyncio.run(waiting.cleanup())
    assert served_head.asked == []
    asyncio.run(waiting.on_kill())
    assert (served_head.jobs == {"job-1": ["STOPPED"]}) is cancel_on_kill


def test_on_kill_says_what_became_of_a_job_that_was_not_there(served_head: Any) -> None:
    asyncio.run(trigger().on_kill())
    assert served_head.asked[0] == "POST /api/jobs/job-1/stop"


def test_a_restarted_triggerer_repeats_and_loses_no_line(
    served_head: Any, triggerer: Triggerer, capsys: pytest.CaptureFixture[str]
) -> None:
    served_head.jobs, served_head.log = {"job-1": ["RUNNING"]}, b"one\ntwo\nthr"

    async def dies_once_it_has_kept_its_bookmark() -> None:
        task = asyncio.ensure_future(events(running_in_triggerer()))
        while "ray_job_read" not in triggerer.xcoms:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(dies_once_it_has_kept_its_bookmark())
    served_head.jobs, served_head.log = {"job-1": ["SUCCEEDED"]}, b"one\ntwo\nthree\n"
    (outcome,) = asyncio.run(events(running_in_triggerer()))
    log = capsys.readouterr().out
    assert re.findall(r"\] (one|two|thr|three) ", log) == ["one", "two", "three"]
    assert "may come twice" not in log
    assert outcome.bookmark is not None
    assert triggerer.xcoms["ray_job_read"] == outcome.bookmark.to_json()


def test_without_a_triggerer_the_bookmark_of_the_task_serves(
    served_head: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    served_head.jobs, served_head.log = {"job-1": ["SUCCEEDED"]}, b"one\ntwo\n"
    asyncio.run(
        events(trigger(bookmark={"submission_id": "job-1", "submitted_ms": 1_000_000, "log_bytes": 4}))
    )
    log = capsys.readouterr().out
    assert re.findall(r"\] (one|two) ", log) == ["two"]
    assert log.count("may come twice") == 1


def test_a_connection_that_cannot_work_says_nothing_about_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY", json.dumps({"conn_type": "http"}))
    (outcome,) = asyncio.run(events(trigger()))
    assert outcome.end == "unknown"
    assert "names no host" in outcome.said


def test_the_event_loop_is_not_blocked_by_a_large_log(served_head: Any, triggerer: Triggerer) -> None:
    served_head.jobs = {"job-1": ["RUNNING", "SUCCEEDED"]}
    served_head.log = b"\n" * 5_000 + (b"x" * 1_999 + b"\n") * 3_000 + b"y" * 3_000_000

    async def waiting() -> None:
        (outcome,) = await events(running_in_triggerer())
        assert outcome.end == "ended"
        assert outcome.last_lines[-1].endswith("bytes)")

    assert longest_turn_seconds(waiting()) < TURN_SECONDS
