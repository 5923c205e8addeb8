from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string

from strandloop.ray_job import Outcome
from strandloop.triggers.ray_jobs import RayJobTrigger

NOT_DEFAULT: dict[str, Any] = {
    "submission_id": "job-1",
    "ray_conn_id": "ray",
    "poll_interval_seconds": 0.01,
    "unreachable_timeout_seconds": 7.0,
    "deadline": 1_234.5,
    "stop_at_deadline": False,
    "cancel_on_kill": False,
}


def trigger(**kwargs: Any) -> RayJobTrigger:
    return RayJobTrigger(
        "job-1",
        **{"ray_conn_id": "ray", "poll_interval_seconds": 0.01, "unreachable_timeout_seconds": 5, **kwargs},
    )


async def events(waiting: RayJobTrigger) -> list[Outcome]:
    return [Outcome.from_event(event.payload) async for event in waiting.run()]


def test_it_serialises_to_itself() -> None:
    assert NOT_DEFAULT.keys() == inspect.signature(RayJobTrigger).parameters.keys()
    path, kwargs = RayJobTrigger(**NOT_DEFAULT).serialize()
    assert kwargs == NOT_DEFAULT
    assert import_string(path) is RayJobTrigger
    assert import_string(path)(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


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
