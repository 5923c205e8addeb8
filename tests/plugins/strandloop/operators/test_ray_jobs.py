from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from strandloop.errors import InvalidJob, JobFailed, JobLost, SubmitRefused
from strandloop.job_identity import job_identity
from strandloop.operators.ray_jobs import RayJobOperator
from strandloop.ray_dialogue import Answer
from strandloop.ray_job import Outcome, RayJob
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
        )
    assert set(task.template_fields) == {"entrypoint", "runtime_env", "metadata", "ray_conn_id"}
    task.render_template_fields({"batch": "2026-11-20"})
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
            "entrypoint": "python -c 'print('\"'\"'a b'\"'\"')'",
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
    task = operator(deferrable=True, run_timeout_seconds=60)
    ti = TaskInstance(task)
    with pytest.raises(TaskDeferred) as deferred:
        task.execute({"ti": ti})  # type: ignore[typeddict-item]
    trigger = deferred.value.trigger
    assert isinstance(trigger, RayJobTrigger)
    assert (trigger.submission_id, trigger.deadline) == (f"{IDENTITY}-1", 1_000.0 + 60)
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


def test_without_waiting_the_reference_comes_at_once(served_head: Any) -> None:
    record = run(operator(wait_for_completion=False))
    assert (record["id"], record["state"]) == (f"{IDENTITY}-1", "PENDING")


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_a_kill_stops_the_job_where_that_is_wanted(served_head: Any, cancel_on_kill: bool) -> None:
    task = operator(wait_for_completion=False, cancel_on_kill=cancel_on_kill)
    run(task)
    task.on_kill()
    assert (served_head.jobs[f"{IDENTITY}-1"] == ["STOPPED"]) is cancel_on_kill


def test_a_kill_before_anything_was_submitted_asks_nobody() -> None:
    operator().on_kill()


def test_the_archive_of_this_project_holds_what_its_jobs_import() -> None:
    from strandloop.code_archive import archive_packages

    names = zipfile.ZipFile(io.BytesIO(archive_packages(["tasks", "hpc_jobs"]).content)).namelist()
    assert "tasks/errors.py" in names
    assert "hpc_jobs/__init__.py" in names
