from __future__ import annotations

import io
import re
import time
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from airflow.sdk.execution_time import macros

from strandloop.errors import (
    InvalidJob,
    JobFailed,
    JobLost,
    JobTimeout,
    RemoteJobError,
    StateUnknown,
    SubmitRefused,
)
from strandloop.hooks.ray_jobs import RayJobHook
from strandloop.job_identity import job_identity
from strandloop.operators.ray_jobs import RayJobOperator
from strandloop.ray_bookmark import Bookmark
from strandloop.ray_dialogue import Answer, Ask
from strandloop.ray_job import Outcome, RayJob
from strandloop.ray_submission import GUARD
from strandloop.triggers.ray_jobs import RayJobTrigger

IDENTITY = job_identity("daily", run_id="run-1", task_id="embed", map_index=-1, generation=0)


@dataclass
class TaskInstance:
    """What the operator reads of a running task instance."""

    task: RayJobOperator
    dag_id: str = "daily"
    run_id: str = "run-1"
    task_id: str = "embed"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 2
    pushed: dict[str, str] = field(default_factory=dict)
    id: str = "this try"
    state: str = "failed"  # what Airflow says of the task when the process is told to stop

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str]]:
        return {self.run_id: {self.task_id: self.state}}

    def xcom_push(self, key: str, value: str) -> None:
        self.pushed[key] = value


class Store(dict):
    set = dict.__setitem__


def operator(**kwargs: Any) -> RayJobOperator:
    defaults: dict[str, Any] = {"entrypoint": ["python", "-m", "tasks.embed"], "poll_interval_seconds": 0.01}
    return RayJobOperator(task_id="embed", retries=2, **{**defaults, "deferrable": False, **kwargs})


def run(task: RayJobOperator, *, store: Store | None = None, **ti: Any) -> dict[str, Any]:
    context: Any = {"ti": TaskInstance(task, **ti)}
    if store is not None:
        context["task_state_store"] = store
    return task.execute(context)


def test_template_fields_are_attributes_and_are_rendered() -> None:
    with DAG("daily", schedule=None):
        task = operator(
            entrypoint=["python", "--batch", "{{ batch }}"],
            runtime_env={"env_vars": {"BATCH": "{{ batch }}"}},
            metadata={"batch": "{{ batch }}"},
            ray_conn_id="ray_{{ batch }}",
            deadline="{{ data_interval_end + macros.timedelta(hours=6) }}",
        )
    assert set(task.template_fields) == {"entrypoint", "runtime_env", "metadata", "ray_conn_id", "deadline"}
    end = datetime(2026, 11, 20, tzinfo=UTC)
    task.render_template_fields({"batch": "2026-11-20", "data_interval_end": end, "macros": macros})  # type: ignore[typeddict-unknown-key,typeddict-item]
    assert task.deadline == "2026-11-20 06:00:00+00:00"
    assert (task.metadata, task.ray_conn_id) == ({"batch": "2026-11-20"}, "ray_2026-11-20")
    assert task.entrypoint == ["python", "--batch", "2026-11-20"]
    assert task.runtime_env == {"env_vars": {"BATCH": "2026-11-20"}}


def test_the_submission_names_task_and_attempt_and_quotes_its_command(served_head: Any) -> None:
    record = run(
        operator(
            entrypoint=["python", "-c", "print('a b')"],
            runtime_env={"env_vars": {"A": "1"}},
            metadata={"batch": "2026-11-20"},
            entrypoint_num_cpus=1,
            entrypoint_num_gpus=0.5,
            entrypoint_memory=2**30,
            entrypoint_resources={"reader": 1},
        )
    )
    assert served_head.submissions == [
        {
            "submission_id": f"{IDENTITY}-1",
            "entrypoint": GUARD + "python -c 'print('\"'\"'a b'\"'\"')'",
            "runtime_env": {"env_vars": {"A": "1"}},
            "metadata": {
                "job_name": "daily.embed",
                "identity": IDENTITY,
                "run_id": "run-1",
                "map_index": "-1",
                "try_number": "1",
                "batch": "2026-11-20",
            },
            "entrypoint_num_cpus": 1,
            "entrypoint_num_gpus": 0.5,
            "entrypoint_memory": 2**30,
            "entrypoint_resources": {"reader": 1},
        }
    ]
    assert (record["id"], record["state"], record["nodes"]) == (f"{IDENTITY}-1", "SUCCEEDED", 2)


def test_packages_become_the_working_directory(
    served_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parcel").mkdir()
    (tmp_path / "parcel" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    run(operator(packages=["parcel"]))
    run(operator(packages=["parcel"]), max_tries=3)  # cleared: another job, the same code
    assert len({s["submission_id"] for s in served_head.submissions}) == 2
    (uri,) = {s["runtime_env"]["working_dir"] for s in served_head.submissions}
    assert served_head.packages == {uri.removeprefix("gcs://")}
    assert len([line for line in served_head.asked if line.startswith("PUT")]) == 1


def test_packages_and_another_working_directory_exclude_each_other(served_head: Any) -> None:
    with pytest.raises(InvalidJob, match="working_dir"):
        run(operator(packages=["parcel"], runtime_env={"working_dir": "s3://x/y.zip"}))
    assert not served_head.submissions


def test_a_succeeded_job_gives_its_result_without_a_second_job(served_head: Any) -> None:
    served_head.driver_since_ms = 1_000_500
    first = run(operator())
    assert run(operator(), try_number=2) == first
    assert len(served_head.submissions) == 1


def test_a_living_job_is_attached_to(served_head: Any) -> None:
    served_head.jobs[f"{IDENTITY}-1"] = ["RUNNING", "RUNNING", "SUCCEEDED"]
    assert run(operator(), try_number=2)["attempt"] == 1
    assert not served_head.submissions


@pytest.mark.parametrize("status", ["FAILED", "STOPPED"])
def test_a_job_that_ended_badly_is_red_and_a_retry_submits_the_next_attempt(
    served_head: Any, status: str
) -> None:
    served_head.jobs[f"{IDENTITY}-1"] = ["RUNNING", status]
    with pytest.raises(JobFailed, match=status):
        run(operator())
    assert not served_head.submissions
    assert run(operator(), try_number=2)["attempt"] == 2


def test_an_exit_code_by_which_the_job_says_that_a_retry_cannot_help_ends_the_task() -> None:
    job = RayJob(f"{IDENTITY}-1", "FAILED", submitted_ms=1, ended_ms=2, exit_code=65)
    event = Outcome(
        "ended", job.submission_id, job=job, last_lines=("error: cut.fq.gz is truncated",)
    ).to_event()
    with pytest.raises(AirflowFailException, match=r"cut\.fq\.gz is truncated"):
        operator(no_retry_exit_codes=[65]).execute_complete({}, event)
    with pytest.raises(JobFailed):
        operator(no_retry_exit_codes=[64]).execute_complete({}, event)


def test_a_cleared_task_gets_a_job_of_its_own(served_head: Any) -> None:
    first = run(operator())
    cleared = run(operator(), try_number=2, max_tries=3)
    assert cleared["name"] != first["name"]
    assert cleared["attempt"] == 1


@pytest.mark.parametrize(("cancel_on_kill", "left"), [(True, "STOPPED"), (False, "RUNNING")])
def test_what_a_clear_left_alive_is_stopped_before_the_new_job(
    served_head: Any, cancel_on_kill: bool, left: str
) -> None:
    served_head.jobs[f"{IDENTITY}-1"] = ["RUNNING"]
    record = run(operator(cancel_on_kill=cancel_on_kill), try_number=2, max_tries=3)
    assert record["name"] != IDENTITY
    assert served_head.jobs[f"{IDENTITY}-1"] == [left]


@pytest.mark.parametrize("lost", [(), (1,)])
def test_a_clear_stops_what_a_later_try_left_even_where_the_head_forgot_the_earlier_one(
    served_head: Any, lost: tuple[int, ...]
) -> None:
    served_head.jobs = {f"{IDENTITY}-{n}": ["FAILED"] for n in (1,) if n not in lost}
    served_head.jobs[f"{IDENTITY}-2"] = ["RUNNING"]
    run(operator(), try_number=3, max_tries=4)
    assert served_head.jobs[f"{IDENTITY}-2"] == ["STOPPED"]


def test_nothing_is_submitted_beside_a_job_that_does_not_end(
    served_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strandloop.operators.ray_jobs.KILL_WAIT", 0.1)
    served_head.jobs, served_head.waiting = {f"{IDENTITY}-1": ["RUNNING"]}, {f"{IDENTITY}-1"}
    for kwargs, ti in (({}, {"max_tries": 3}), ({"durable": False}, {})):
        with pytest.raises(StateUnknown, match="still RUNNING"):
            run(operator(**kwargs), try_number=2, **ti)
    assert not served_head.submissions


def test_a_task_that_is_not_durable_stops_what_an_earlier_try_left(served_head: Any) -> None:
    served_head.jobs[f"{IDENTITY}-1"] = ["RUNNING"]
    assert run(operator(durable=False), try_number=2)["attempt"] == 2
    assert served_head.jobs[f"{IDENTITY}-1"] == ["STOPPED"]
    stopped = served_head.asked.index(f"POST /api/jobs/{IDENTITY}-1/stop")
    assert stopped < served_head.asked.index("POST /api/jobs/")


def test_a_task_that_is_not_durable_takes_no_result_of_an_earlier_try(served_head: Any) -> None:
    served_head.jobs[f"{IDENTITY}-1"] = ["SUCCEEDED"]
    assert run(operator(durable=False), try_number=2)["attempt"] == 2
    assert run(operator(durable=True), try_number=3)["attempt"] == 2
    assert len(served_head.submissions) == 1


def test_the_first_try_of_a_task_that_is_not_durable_stops_nothing(served_head: Any) -> None:
    """A twin of this very process may have submitted it."""
    served_head.jobs[f"{IDENTITY}-1"] = ["RUNNING", "SUCCEEDED"]
    assert run(operator(durable=False))["attempt"] == 1
    assert not served_head.submissions


def test_a_job_that_waits_past_its_queue_limit_is_replaced_by_a_retry(served_head: Any) -> None:
    served_head.jobs[f"{IDENTITY}-1"] = ["PENDING"]
    assert run(operator(queue_timeout_seconds=60), try_number=2)["attempt"] == 2
    assert served_head.jobs[f"{IDENTITY}-1"] == ["STOPPED"]


@pytest.mark.parametrize("deadline", ["2026-11-20T06:00:00+00:00", datetime(2026, 11, 20, tzinfo=UTC)])
def test_after_its_deadline_nothing_is_submitted(served_head: Any, deadline: Any) -> None:
    with pytest.raises(JobTimeout, match=r"its deadline, 2026-11-20.*, passed before its submission"):
        run(operator(deadline=deadline))
    assert not served_head.submissions


def test_a_deadline_without_a_time_zone_is_refused_before_anything_happens(served_head: Any) -> None:
    with pytest.raises(InvalidJob, match="no time zone"):
        run(operator(deadline="2026-11-20T06:00:00"))
    assert not served_head.asked


def test_a_retry_waits_until_the_driver_of_a_lost_job_is_dead(
    served_head: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strandloop.ray_dialogue.ORPHAN_SECONDS", 1.0)
    served_head.head_since_ms = int((time.time() - 0.5) * 1000)
    began = time.monotonic()
    run(operator(), try_number=2)
    assert time.monotonic() - began > 0.4
    served_head.jobs, served_head.asked = {f"{IDENTITY}-1": ["FAILED"]}, []
    run(operator(), try_number=2)
    assert not any("is_head_node" in asked for asked in served_head.asked)  # nothing was lost


def test_a_job_lost_with_its_head_is_red_and_is_not_named_again_where_airflow_remembers(
    served_head: Any,
) -> None:
    store = Store()
    served_head.life = ("PENDING", "RUNNING", "GONE")
    with pytest.raises(JobLost):
        run(operator(), store=store)
    served_head.life = ("PENDING", "SUCCEEDED")
    assert run(operator(), store=store, try_number=2)["attempt"] == 2
    assert run(operator(), store=store, try_number=4, max_tries=4)["attempt"] == 1


def test_a_refused_submission_is_red(served_head: Any) -> None:
    served_head.trouble = iter([None, None, Answer(400, "TypeError: no")])
    with pytest.raises(SubmitRefused, match="TypeError: no"):
        run(operator())


def test_it_defers_after_it_stored_the_link_with_an_absolute_deadline(served_head: Any) -> None:
    task = operator(
        deferrable=True,
        run_timeout_seconds=60,
        queue_timeout_seconds=30,
        deadline=datetime.fromtimestamp(4_000_000_000, tz=UTC),
    )
    ti = TaskInstance(task)
    store = Store(ray_job_read={"submission_id": f"{IDENTITY}-1", "submitted_ms": 1_000_000, "log_bytes": 7})
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({"ti": ti, "task_state_store": store})  # type: ignore[typeddict-item]
    trigger = deferred.value.trigger
    assert isinstance(trigger, RayJobTrigger)
    assert (trigger.submission_id, trigger.deadline) == (f"{IDENTITY}-1", 4_000_000_000)
    assert (trigger.queue_timeout_seconds, trigger.run_timeout_seconds) == (30, 60)
    assert trigger.bookmark is not None
    assert trigger.bookmark["log_bytes"] == 7
    assert (trigger.stop_at_deadline, trigger.cancel_on_kill) == (True, True)
    assert deferred.value.method_name == "execute_complete"
    assert deferred.value.timeout is None
    (page,) = ti.pushed.values()
    assert page.endswith(f"/#/jobs/{IDENTITY}-1")


def test_it_does_not_defer_for_a_job_that_has_ended(served_head: Any) -> None:
    served_head.jobs[f"{IDENTITY}-1"] = ["SUCCEEDED"]
    assert run(operator(deferrable=True))["state"] == "SUCCEEDED"


def test_what_the_trigger_saw_decides(served_head: Any) -> None:
    event = Outcome("lost", f"{IDENTITY}-1", said="the head was restarted").to_event()
    with pytest.raises(JobLost, match="the head was restarted"):
        operator().execute_complete({}, event)  # type: ignore[typeddict-item]


def test_where_the_trigger_gave_up_a_retry_goes_on_in_the_log(served_head: Any) -> None:
    bookmark = Bookmark(f"{IDENTITY}-1", 1_000_000, log_bytes=4)
    store = Store()
    for end, kept in (("ended", None), ("unknown", bookmark.to_json())):
        event = Outcome(end, f"{IDENTITY}-1", said="silence", bookmark=bookmark).to_event()  # type: ignore[arg-type]
        with pytest.raises(StateUnknown):
            operator().execute_complete({"task_state_store": store}, event)  # type: ignore[typeddict-item]
        assert store.get("ray_job_read") == kept


def test_a_retry_of_a_killed_worker_goes_on_in_the_log(
    served_head: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    served_head.jobs[f"{IDENTITY}-1"], served_head.log = ["RUNNING", "GONE"], b"one\ntwo\n"
    store = Store()
    with pytest.raises(JobLost):
        run(operator(), store=store)
    served_head.jobs[f"{IDENTITY}-1"], served_head.log = ["RUNNING", "SUCCEEDED"], b"one\ntwo\nthree\n"
    run(operator(), store=store, try_number=2)
    assert re.findall(r"\] (one|two|three) ", capsys.readouterr().out) == ["one", "two", "three"]


def test_without_waiting_the_reference_comes_at_once(served_head: Any) -> None:
    record = run(operator(wait_for_completion=False))
    assert (record["id"], record["state"]) == (f"{IDENTITY}-1", "PENDING")


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_a_kill_stops_the_job_where_that_is_wanted(served_head: Any, cancel_on_kill: bool) -> None:
    task = operator(wait_for_completion=False, cancel_on_kill=cancel_on_kill)
    run(task)
    task.on_kill()
    assert (served_head.jobs[f"{IDENTITY}-1"] == ["STOPPED"]) is cancel_on_kill


def test_a_kill_of_a_leftover_leaves_the_job_to_the_next_try(served_head: Any) -> None:
    task = operator(wait_for_completion=False)
    run(task, state="queued")
    task.on_kill()
    assert served_head.jobs[f"{IDENTITY}-1"] != ["STOPPED"]


@pytest.mark.parametrize(
    ("request_", "submitted", "left"),
    [("GET /api/jobs/", 0, None), ("POST /api/jobs/", 1, ["STOPPED"])],
)
def test_a_kill_during_the_submission_leaves_no_job(
    served_head: Any, monkeypatch: pytest.MonkeyPatch, request_: str, submitted: int, left: Any
) -> None:
    task = operator()
    play, killed = RayJobHook.play, []

    def interrupted(hook: RayJobHook, dialogue: Any, **kwargs: Any) -> Any:
        """Play a dialogue, with a signal while the first request of the kind is on its way."""

        def steps() -> Any:
            answer = None
            while True:
                try:
                    step = dialogue.send(answer)
                except StopIteration as end:
                    return end.value
                is_it = isinstance(step, Ask) and f"{step.method} {step.path}".startswith(request_)
                if is_it and not killed:
                    killed.append(step)
                    task.on_kill()
                answer = yield step

        return play(hook, steps(), **kwargs)

    monkeypatch.setattr(RayJobHook, "play", interrupted)
    with pytest.raises(RemoteJobError):
        run(task)
    assert killed
    assert len(served_head.submissions) == submitted
    assert served_head.jobs.get(f"{IDENTITY}-1") == left


def test_a_kill_before_anything_was_submitted_asks_nobody() -> None:
    operator().on_kill()


def test_the_archive_of_this_project_holds_what_its_jobs_import() -> None:
    from strandloop.code_archive import archive_packages

    names = zipfile.ZipFile(io.BytesIO(archive_packages(["tasks", "hpc_jobs"]).content)).namelist()
    assert "tasks/errors.py" in names
    assert "hpc_jobs/__init__.py" in names
