"""A try that was replaced leaves the job to its successor; a try that a person ends does not."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from strandloop import succession
from strandloop.succession import KEY, Succession


@dataclass
class TaskInstance:
    """What Airflow's task instance offers here; ``state`` is what the server says of the task."""

    state: str | None
    id: str = "this try"
    dag_id: str = "dag"
    run_id: str = "run"
    task_id: str = "job"
    map_index: int = -1
    answers: threading.Event = field(default_factory=threading.Event)

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str | None]]:
        assert self.answers.wait(10)
        return {self.run_id: {self.task_id: self.state}}


def superseded(state: str | None, *, holder: str | None = "this try", silent: bool = False) -> bool:
    ti = TaskInstance(state)
    if not silent:
        ti.answers.set()
    succeeding = Succession({"ti": ti, "task_state_store": {KEY: holder} if holder else {}})
    try:
        return succeeding.superseded()
    finally:
        ti.answers.set()


@pytest.mark.parametrize("state", ["failed", "success", "skipped", "removed", "restarting", "running"])
def test_a_try_that_is_ended_answers_for_its_job(state: str) -> None:
    assert not superseded(state)


@pytest.mark.parametrize("state", [None, "scheduled", "queued", "deferred", "up_for_retry"])
def test_a_later_try_is_to_come(state: str | None) -> None:
    assert superseded(state)


@pytest.mark.parametrize("holder", ["a later try", None])
def test_a_later_try_is_at_work(holder: str | None) -> None:
    assert superseded("running", holder=holder)


def test_without_a_store_a_running_task_is_taken_for_this_try() -> None:
    ti = TaskInstance("running")
    ti.answers.set()
    assert not Succession({"ti": ti}).superseded()


def test_without_an_answer_the_try_answers_for_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(succession, "PATIENCE_SECONDS", 0.05)
    assert not superseded(None, silent=True)
