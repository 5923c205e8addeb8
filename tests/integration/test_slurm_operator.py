"""SlurmJobOperator and SlurmJobSensor as tasks of a DAG, against the stack's Slurm and sshd.

How many jobs ran is counted by the jobs themselves: each appends a line to a file.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from strandloop.errors import InvalidJob, SubmitRefused
from strandloop.hooks.slurm import SlurmHook
from strandloop.job_identity import job_identity
from strandloop.slurm_answers import QueuedJob, parse_queued
from strandloop.slurm_commands import cancel_by_name, queued
from strandloop.slurm_submission import Submission
from strandloop.slurm_submitter import Submitter
from strandloop.slurm_waiting import settle, wait
from strandloop.slurm_watch import WatchPlan
from strandloop.triggers.slurm import SlurmJobTrigger

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
DAGS = Path(__file__).with_name("dags")
MODES = pytest.mark.parametrize("mode", ["sync", "deferred"])


@dataclass(frozen=True)
class Ended:
    """How one task ended: its state, its return value, and the part of the log that is its own."""

    state: str
    record: dict[str, Any]
    log: str


@dataclass(frozen=True)
class Dag:
    """One DAG id of its own; every run of it is the same task instances again, in a process of its own."""

    environment: Mapping[str, str]
    job_root: Path
    dag_id: str

    def start(
        self, sensors: dict[str, Any] | None = None, **operators: dict[str, Any]
    ) -> subprocess.Popen[str]:
        defaults = {"poll_interval_seconds": 0.5, "job_root": str(self.job_root)}
        tasks = {name: {**defaults, **kwargs} for name, kwargs in operators.items()}
        case = {"dag_id": self.dag_id, "operators": tasks, "sensors": sensors or {}, "cluster": bool(sensors)}
        return subprocess.Popen(
            [sys.executable, str(DAGS / "slurm_tasks.py")],
            env={**self.environment, "SLURM_TASKS": json.dumps(case)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, sensors: dict[str, Any] | None = None, **operators: dict[str, Any]) -> dict[str, Ended]:
        return finish(self.start(sensors, **operators))

    def name_of(self, task_id: str) -> str:
        run_id = "manual__2026-11-20T00:00:00+00:00"
        return job_identity(self.dag_id, run_id=run_id, task_id=task_id, map_index=-1, generation=0)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Return what a run has printed up to these words."""
    assert process.stdout is not None
    seen = ""
    while words not in seen:
        line = process.stdout.readline()
        assert line, f"ended without {words!r}: {seen}"
        seen += line
    return seen


def finish(process: subprocess.Popen[str], seen: str = "") -> dict[str, Ended]:
    output, _ = process.communicate(timeout=400)
    output = seen + output
    assert process.returncode == 0, output
    parts = re.split(r"\[DAG TEST\] starting task_id=(\w+)", output)
    logs = dict(zip(parts[1::2], parts[2::2], strict=True))
    ends = json.loads(output.splitlines()[-1])
    return {name: Ended(state, record, logs.get(name, "")) for name, (state, record) in ends.items()}


@pytest.fixture(scope="module")
def environment(stack: Mapping[str, str], airflow_home: Path) -> Mapping[str, str]:
    """The stack's services with an Airflow of its own, whose DAG folder holds nothing but our DAGs."""
    return {
        **os.environ,
        **stack,
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(ROOT)]),
    }


@pytest.fixture(scope="module")
def shared(stack: Mapping[str, str]) -> Path:
    """A folder of this test run on the file system that the nodes share."""
    folder = Path(stack["STRANDLOOP_SHARED_DIR"]) / "tests" / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def dag(environment: Mapping[str, str], shared: Path) -> Dag:
    return Dag(environment, shared / "jobs", f"slurm_{uuid.uuid4().hex[:8]}")


@pytest.fixture
def hook(stack: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> SlurmHook:
    monkeypatch.setenv("AIRFLOW_CONN_SLURM", stack["AIRFLOW_CONN_SLURM"])
    return SlurmHook()


@pytest.fixture(scope="module")
def ended(environment: Mapping[str, str], shared: Path) -> dict[str, Ended]:
    """One run of a DAG with every ending that comes by itself, awaited in both ways."""
    operators: dict[str, dict[str, Any]] = {
        f"{ending}_{mode}": {
            "body": f"#!/bin/bash\n#SBATCH --nodes=1\n{body}\n",
            "deferrable": mode == "deferred",
            "run_timeout_seconds": 3 if ending == "limit" else 120,
        }
        for ending, body in {
            "success": "echo reads: 12; printf 'no line end'",
            "exit_1": "echo no reads in sample 7 >&2; exit 1",
            "signal": "kill -9 $$",
            "limit": "sleep 600",
        }.items()
        for mode in ("sync", "deferred")
    }
    operators["typed"] = {
        "body": "#!/bin/bash\n#SBATCH --nodes=1\necho $SLURM_JOB_NUM_NODES nodes for $WHO, $1; pwd",
        "script_args": ["it's {{ task.task_id }}"],
        "environment": {"WHO": "{{ dag.dag_id }}, $HOME"},
        "nodes": "{{ 1 + 1 }}",
    }
    operators |= {
        f"array_{ending}_{mode}": {
            "body": f"#!/bin/bash\n#SBATCH --array=0-4\necho element $SLURM_ARRAY_TASK_ID; {body}",
            "array": "0-5%4",
            "deferrable": mode == "deferred",
        }
        for ending, body in {
            "success": "true",
            "failure": "case $SLURM_ARRAY_TASK_ID in 1|4) exit 4;; esac",
        }.items()
        for mode in ("sync", "deferred")
    }
    operators["progress"] = {
        "body": """echo '{"percent": 41.7, "rate": 12, "unit": "reads"}' > progress.json; sleep 2""",
    }
    operators["good_array"] = {"body": "true", "array": "1,3", "wait_for_completion": False}
    operators["bad_array"] = {
        "body": "exit $SLURM_ARRAY_TASK_ID", "array": "0-2", "wait_for_completion": False,
    }  # fmt: skip
    operators["bad_partition"] = {"body": "true", "partition": "nowhere"}
    operators["too_big"] = {"body": "true", "mem": "4000G"}
    operators["good"] = {"body": "sleep 1; echo done", "wait_for_completion": False}
    operators["bad"] = {"body": "echo broken; exit 4", "wait_for_completion": False}
    sensors = {
        f"{of}_{mode}": [of, {"deferrable": mode == "deferred", "poke_interval": 0.5}]
        for of in ("good", "bad", "good_array", "bad_array")
        for mode in ("sync", "deferred")
    }
    return Dag(environment, shared / "jobs", f"slurm_{uuid.uuid4().hex[:8]}").run(sensors, **operators)


@MODES
def test_success(ended: dict[str, Ended], mode: str) -> None:
    task = ended[f"success_{mode}"]
    assert task.state == "success", task.log
    assert (task.record["system"], task.record["state"]) == ("slurm", "SUCCEEDED")
    assert (task.record["nodes"], task.record["attempt"]) == (1, 1)
    times = [datetime.fromisoformat(task.record[f"{what}_at"]) for what in ("submitted", "started", "ended")]
    assert times == sorted(times)
    assert task.record["cluster"] and Path(task.record["job_dir"], "exit.json").is_file()
    assert task.log.count("reads: 12") == 1 and task.log.count("no line end") == 1


@MODES
@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("exit_1", ["JobFailed", "its script ended with 1", "exit code 1", "| no reads in sample 7"]),
        ("signal", ["JobFailed", "was ended by signal 9"]),
        ("limit", ["JobTimeout", "the limit of this task is 3 s; it was cancelled"]),
    ],
)
def test_failures_say_why(ended: dict[str, Ended], ending: str, words: list[str], mode: str) -> None:
    task = ended[f"{ending}_{mode}"]
    assert (task.state, task.record) == ("failed", None)
    assert all(word in task.log for word in words), task.log


@MODES
def test_an_array_succeeds_as_a_whole(ended: dict[str, Ended], mode: str) -> None:
    task = ended[f"array_success_{mode}"]
    assert task.state == "success", task.log
    assert (task.record["state"], task.record["array"]) == ("SUCCEEDED", "0-5%4")
    assert "all of its 6 elements succeeded" in task.log
    assert len(list(Path(task.record["job_dir"]).glob("job.[0-5].log"))) == 6


@MODES
def test_an_array_fails_with_the_list_of_its_failed_elements(ended: dict[str, Ended], mode: str) -> None:
    task = ended[f"array_failure_{mode}"]
    assert task.state == "failed", task.log
    said = task.log.rpartition("JobFailed")[2]
    assert "2 of 6 elements did not succeed" in said and "its script ended with 4, exit code 4, on n" in said
    assert "| job.1.log:" in said and "| element 4" in said


@MODES
def test_a_sensor_waits_for_an_array(ended: dict[str, Ended], mode: str) -> None:
    good, bad = ended[f"good_array_{mode}"], ended[f"bad_array_{mode}"]
    assert good.state == "success" and good.record["array"] == "1,3", good.log
    assert bad.state == "failed" and "2 of 3 elements did not succeed" in bad.log, bad.log
    assert "1 FAILED: its script ended with 1" in bad.log and "2 FAILED: its script ended with 2" in bad.log


def test_progress_is_shown(ended: dict[str, Ended]) -> None:
    assert ended["progress"].log.count("progress: 41.7 % done, 12 reads/s") == 1


@MODES
def test_a_sensor_waits_for_the_job_of_another_task(ended: dict[str, Ended], mode: str) -> None:
    assert ended["good"].record["state"] == "PENDING"
    good, bad = ended[f"good_{mode}"], ended[f"bad_{mode}"]
    assert good.state == "success" and good.record["state"] == "SUCCEEDED"
    assert good.record["id"] == ended["good"].record["id"] and "done" in good.log
    assert bad.state == "failed" and "exit code 4" in bad.log


def test_resources_arguments_and_environment_are_templated(ended: dict[str, Ended]) -> None:
    task = ended["typed"]
    assert task.state == "success", task.log
    assert re.search(r"2 nodes for slurm_\w+, \$HOME, it's typed", task.log)
    assert task.record["nodes"] == 2 and task.record["job_dir"] in task.log


def test_a_refused_submission_says_what_sbatch_said(ended: dict[str, Ended]) -> None:
    assert ended["bad_partition"].state == "failed"
    assert "invalid partition" in ended["bad_partition"].log.lower()


def test_a_job_that_no_node_can_hold_is_not_left_in_the_queue(ended: dict[str, Ended]) -> None:
    task = ended["too_big"]
    assert task.state == "failed" and "SubmitRefused" in task.log, task.log


def test_an_existing_cluster_is_used_and_left(ended: dict[str, Ended]) -> None:
    cluster = ended["cluster"]
    assert cluster.state == "success" and cluster.record["nodes"] >= 2 and cluster.record["cluster_name"]
    assert "nothing is deleted" in ended["release"].log


@MODES
def test_a_finished_job_is_taken_from_its_exit_file(dag: Dag, shared: Path, mode: str) -> None:
    count = shared / f"once_{mode}_{dag.dag_id}"
    job = {"body": f"echo x >> {count}", "deferrable": mode == "deferred"}
    first, second = dag.run(job=job)["job"], dag.run(job=job)["job"]
    assert first.state == second.state == "success"
    assert second.record == first.record and "taking the result" in second.log
    assert count.read_text() == "x\n"


def test_a_failed_job_is_followed_by_the_next_attempt(dag: Dag, shared: Path) -> None:
    flag = shared / f"flag_{dag.dag_id}"
    job = {"body": f"[ -e {flag} ] && exit 0; touch {flag}; exit 5"}
    first, second = dag.run(job=job)["job"], dag.run(job=job)["job"]
    assert (first.state, second.state) == ("failed", "success")
    assert second.record["attempt"] == 2


def test_the_next_attempt_of_an_array_runs_only_what_did_not_succeed(dag: Dag, shared: Path) -> None:
    flag, count = shared / f"flag_{dag.dag_id}", shared / f"count_{dag.dag_id}"
    body = f"echo $SLURM_ARRAY_TASK_ID >> {count}; [ $SLURM_ARRAY_TASK_ID != 1 ] || [ -e {flag} ] || exit 5"
    job = {"body": body, "array": "0-2"}
    first = dag.run(job=job)["job"]
    flag.touch()
    second = dag.run(job=job)["job"]
    assert (first.state, second.state) == ("failed", "success"), second.log
    assert (second.record["attempt"], second.record["array"]) == (2, "1")
    assert sorted(count.read_text().split()) == ["0", "1", "1", "2"]


def test_without_durability_a_retry_cancels_the_old_job(dag: Dag, hook: SlurmHook, shared: Path) -> None:
    count, go = shared / f"count_{dag.dag_id}", shared / f"go_{dag.dag_id}"
    body = f"echo x >> {count}; while [ ! -e {go} ]; do sleep 0.1; done"
    job = {"body": body, "durable": False}
    first = dag.start(job=job)
    until(count.is_file)
    first.kill()
    first.communicate()
    second = dag.start(job=job)
    until(lambda: count.read_text() == "x\nx\n")
    assert len(jobs(hook, dag.name_of("job"))) == 1
    go.touch()
    task = finish(second)["job"]
    assert task.state == "success" and task.record["attempt"] == 2, task.log


@MODES
def test_scancel_by_a_person(dag: Dag, hook: SlurmHook, mode: str) -> None:
    process = dag.start(job={"body": "sleep 600", "deferrable": mode == "deferred"})
    name = dag.name_of("job")
    until(lambda: [job.code for job in jobs(hook, name)] == ["RUNNING"])
    hook.run(cancel_by_name(name))
    task = finish(process)["job"]
    assert task.state == "failed" and "CANCELLED: scontrol says CANCELLED" in task.log, task.log


@MODES
def test_a_worker_that_died_finds_its_job_again(dag: Dag, hook: SlurmHook, shared: Path, mode: str) -> None:
    count, go = shared / f"count_{dag.dag_id}", shared / f"go_{dag.dag_id}"
    job = {
        "body": f"echo x >> {count}; while [ ! -e {go} ]; do sleep 0.1; done; echo finished",
        "deferrable": mode == "deferred",
    }
    first = dag.start(job=job)
    until(count.is_file)
    first.kill()
    first.communicate()
    second = dag.start(job=job)
    seen = read_until(second, "attaching to job")
    assert len(jobs(hook, dag.name_of("job"))) == 1
    go.touch()
    task = finish(second, seen)["job"]
    assert task.state == "success" and "finished" in task.log, task.log
    assert count.read_text() == "x\n"


def test_a_task_that_is_ended_cancels_its_job(dag: Dag, hook: SlurmHook) -> None:
    process, name = dag.start(job={"body": "sleep 600"}), dag.name_of("job")
    until(lambda: [job.code for job in jobs(hook, name)] == ["RUNNING"])
    process.terminate()
    task = finish(process)["job"]
    assert task.state == "failed" and "was ended while it worked on job" in task.log, task.log
    assert jobs(hook, name) == ()


@pytest.mark.parametrize("cancel_on_kill", [True, False])
def test_a_deferred_task_that_is_ended_cancels_its_job(
    hook: SlurmHook, shared: Path, cancel_on_kill: bool
) -> None:
    name = str(uuid.uuid4())
    submission = Submission(identity=name, job_root=str(shared / "jobs"), script="sleep 600")
    record = Submitter(hook.run, print).ensure(submission)
    trigger = SlurmJobTrigger("slurm", cancel_on_kill=cancel_on_kill, record=record.to_xcom(), reader="r")
    asyncio.run(trigger.on_kill())
    assert len(jobs(hook, name)) == (0 if cancel_on_kill else 1)
    hook.run(cancel_by_name(name))


def test_two_workers_at_once_end_with_one_job(hook: SlurmHook, shared: Path) -> None:
    count, name = shared / "twins", str(uuid.uuid4())
    body = f"#!/bin/bash\necho x >> {count}; sleep 1"
    submission = Submission(identity=name, job_root=str(shared / "jobs"), script=body)

    def worker(_: int) -> dict[str, Any]:
        with SlurmHook() as own:
            record = Submitter(own.run, print, patience=60, look_interval=0.2).ensure(submission)
            plan = WatchPlan(record.to_xcom(), reader=uuid.uuid4().hex[:8], poll_interval_seconds=0.3)
            return settle(own.run, wait(own.run, plan, say=print))

    with ThreadPoolExecutor(4) as pool:
        records = list(pool.map(worker, range(4)))
    assert len({record["id"] for record in records}) == 1
    assert count.read_text() == "x\n" and jobs(hook, name) == ()


def test_a_refusal_leaves_no_job(hook: SlurmHook, shared: Path) -> None:
    name = str(uuid.uuid4())
    submission = Submission(
        identity=name, job_root=str(shared / "jobs"), script="true", options=("--partition=nowhere",)
    )
    with pytest.raises(SubmitRefused, match="partition"):
        Submitter(hook.run, print).ensure(submission)
    assert jobs(hook, name) == ()


def test_another_host_key_is_refused(stack: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    connection = json.loads(stack["AIRFLOW_CONN_SLURM"])
    extra = connection["extra"] if isinstance(connection["extra"], dict) else json.loads(connection["extra"])
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3Pj8v1l9wMSbzkz0o2rm4g4mXq5JZ4Xw3P7hQ0n0aB"
    connection["extra"] = {**extra, "host_key": other}
    monkeypatch.setenv("AIRFLOW_CONN_SLURM", json.dumps(connection))
    with pytest.raises(InvalidJob, match="another key"):
        SlurmHook().run(queued("any"))


def jobs(hook: SlurmHook, name: str) -> tuple[QueuedJob, ...]:
    return parse_queued(hook.run(queued(name)).stdout.decode())


def until(condition: Callable[[], Any], seconds: float = 200.0) -> Any:
    """Return the first true value of ``condition``."""
    give_up_at = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < give_up_at, "nothing came of it"
        time.sleep(0.1)
    return value
