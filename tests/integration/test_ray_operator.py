"""RayJobOperator and RayJobSensor as tasks of a DAG, against the stack's Ray.

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
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import SetXCom, XComResult

from strandloop.hooks.ray_jobs import RayJobHook
from strandloop.job_identity import job_identity
from strandloop.operators.ray_jobs import RayJobOperator
from strandloop.ray_dialogue import find, stop, submit
from strandloop.ray_job import submission_id_of
from strandloop.ray_submission import submission_body
from strandloop.triggers.ray_jobs import RayJobTrigger

pytestmark = pytest.mark.integration
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
    dag_id: str

    def start(
        self, sensors: dict[str, Any] | None = None, **operators: dict[str, Any]
    ) -> subprocess.Popen[str]:
        quick = {name: {"poll_interval_seconds": 0.5, **kwargs} for name, kwargs in operators.items()}
        case = {"dag_id": self.dag_id, "operators": quick, "sensors": sensors or {}}
        return subprocess.Popen(
            [sys.executable, str(DAGS / "ray_tasks.py")],
            env={**self.environment, "RAY_TASKS": json.dumps(case)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, sensors: dict[str, Any] | None = None, **operators: dict[str, Any]) -> dict[str, Ended]:
        return finish(self.start(sensors, **operators))


def finish(process: subprocess.Popen[str]) -> dict[str, Ended]:
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    parts = re.split(r"\[DAG TEST\] starting task_id=(\w+)", output)
    logs = dict(zip(parts[1::2], parts[2::2], strict=True))
    ends = json.loads(output.splitlines()[-1])
    return {name: Ended(state, record, logs.get(name, "")) for name, (state, record) in ends.items()}


@pytest.fixture(scope="module")
def environment(
    stack: Mapping[str, str], airflow_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """The stack's services with an Airflow of its own, whose DAG folder holds nothing but our DAG."""
    parcel = tmp_path_factory.mktemp("code") / "ray_parcel"
    parcel.mkdir()
    (parcel / "__init__.py").touch()
    (parcel / "contents.py").write_text("import sys; print('from', __file__, sys.argv[1])")
    return {
        **os.environ,
        **stack,
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(ROOT), str(parcel.parent)]),
    }


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one file per task, to which each of its jobs appends a line."""
    return tmp_path_factory.mktemp("ran")


@pytest.fixture
def hook(stack: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> RayJobHook:
    monkeypatch.setenv("AIRFLOW_CONN_RAY", stack["AIRFLOW_CONN_RAY"])
    return RayJobHook()


@pytest.fixture
def dag(environment: Mapping[str, str]) -> Dag:
    return Dag(environment, f"ray_{uuid.uuid4().hex[:8]}")


@pytest.fixture(scope="module")
def ended(environment: Mapping[str, str], ran: Path) -> dict[str, Ended]:
    """One run of a DAG with every ending that comes by itself, awaited in both ways."""
    operators: dict[str, dict[str, Any]] = {
        f"{ending}_{mode}": {
            "entrypoint": python(ran / f"{ending}_{mode}", code),
            "deferrable": mode == "deferred",
            "run_timeout_seconds": 6 if ending == "limit" else 120,
        }
        for ending, code in {
            "success": "print('reads: 12'); print('@progress {\"percent\": 50}', flush=True); "
            "import os; os.write(1, b'byte \\xff of no text\\n'); print('no line end', end='')",
            "exit_1": "raise SystemExit('no reads in sample 7')",
            "signal": "import os; os.kill(os.getpid(), 9)",
            "limit": "import time; time.sleep(600)",
        }.items()
        for mode in ("sync", "deferred")
    }
    operators |= {
        f"queue_{mode}": {
            "entrypoint": python(ran / f"queue_{mode}", ""),
            "deferrable": mode == "deferred",
            "entrypoint_num_cpus": 64,
            "queue_timeout_seconds": 3,
        }
        for mode in ("sync", "deferred")
    }
    operators["parcel"] = {
        "entrypoint": [sys.executable, "-m", "ray_parcel.contents", '{{ task.task_id }}\'s "quotes"'],
        "packages": ["ray_parcel"],
        "runtime_env": {"env_vars": {"WHO": "{{ dag.dag_id }}"}},
    }
    operators["no_code"] = {"entrypoint": "true", "runtime_env": {"working_dir": "gcs://_ray_pkg_none.zip"}}
    operators["good"] = {"entrypoint": "sleep 1", "wait_for_completion": False}
    operators["bad"] = {"entrypoint": "echo broken; exit 4", "wait_for_completion": False}
    sensors = {
        f"see_{job}_{mode}": [job, {"deferrable": mode == "deferred", "poke_interval": 0.5}]
        for job in ("good", "bad")
        for mode in ("sync", "deferred")
    }
    return Dag(environment, f"ray_{uuid.uuid4().hex[:8]}").run(sensors, **operators)


def task_instance(task: Any, *, try_number: int = 1) -> Any:
    """What the operator reads of a running task instance."""
    return SimpleNamespace(
        task=task,
        dag_id="by_hand",
        run_id="run-1",
        task_id=task.task_id if task else "job",
        map_index=-1,
        try_number=try_number,
        max_tries=2,
        xcom_push=lambda key, value: None,
    )


def python(ran: Path, code: str) -> list[str]:
    return [sys.executable, "-c", f"open({str(ran)!r}, 'a').write('ran\\n'); {code}"]


def times(ran: Path) -> int:
    return len(ran.read_text().splitlines()) if ran.exists() else 0


def first_attempt(dag: Dag, task_id: str) -> str:
    run_id = "manual__2026-11-20T00:00:00+00:00"
    identity = job_identity(dag.dag_id, run_id=run_id, task_id=task_id, map_index=-1, generation=0)
    return submission_id_of(identity, attempt=1)


def status(hook: RayJobHook, submission_id: str) -> str:
    job = hook.play(find(submission_id, patience=30))
    return job.status if job else "absent"


def until(condition: Callable[[], bool], *, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the awaited condition did not come true"
        time.sleep(0.2)


@MODES
def test_success_gives_the_record_and_the_log(ended: dict[str, Ended], ran: Path, mode: str) -> None:
    task = ended[f"success_{mode}"]
    assert task.state == "success"
    record = task.record
    assert (record["system"], record["state"], record["attempt"]) == ("ray", "SUCCEEDED", 1)
    assert record["id"] == record["name"] + "-1"
    assert record["nodes"] >= 1
    assert record["submitted_at"] <= record["started_at"] <= record["ended_at"]
    assert len(re.findall(r"\] reads: 12 ", task.log)) == 1
    assert len(re.findall(r"\] no line end ", task.log)) == 1
    assert len(re.findall(r"\] byte � of no text ", task.log)) == 1
    assert len(re.findall(r"\] progress: 50\.0 % done ", task.log)) == 1
    assert "] @progress" not in task.log
    assert "Failed to push an xcom" not in task.log  # the link to the job's page
    assert times(ran / f"success_{mode}") == 1


@MODES
def test_a_driver_that_exits_1_is_red_and_the_error_ends_with_its_log(
    ended: dict[str, Ended], ran: Path, mode: str
) -> None:
    task = ended[f"exit_1_{mode}"]
    assert task.state == "failed"
    assert "FAILED: JOB_ENTRYPOINT_COMMAND_ERROR" in task.log
    assert "; exit code 1\n" in task.log
    assert "  | no reads in sample 7" in task.log
    assert times(ran / f"exit_1_{mode}") == 1


@MODES
def test_a_driver_that_dies_of_a_signal_is_red(ended: dict[str, Ended], mode: str) -> None:
    task = ended[f"signal_{mode}"]
    assert task.state == "failed"
    assert "; exit code 137\n" in task.log


@MODES
def test_at_its_time_limit_a_job_is_stopped_and_the_task_says_so(
    ended: dict[str, Ended], hook: RayJobHook, mode: str
) -> None:
    task = ended[f"limit_{mode}"]
    assert task.state == "failed"
    said = re.search(r"Ray job (\S+): reached its run limit of 6 s at \S+ and was stopped", task.log)
    assert said is not None
    assert status(hook, said[1]) == "STOPPED"


@MODES
def test_a_job_that_does_not_start_in_time_is_told_to_stop_and_the_task_says_so(
    ended: dict[str, Ended], ran: Path, mode: str
) -> None:
    task = ended[f"queue_{mode}"]
    assert task.state == "failed"
    assert re.search(r"Ray job (\S+): reached its queue limit of 3 s at \S+ and was told to stop", task.log)
    assert times(ran / f"queue_{mode}") == 0


def test_a_job_that_was_stopped_while_it_waited_never_does_anything(hook: RayJobHook, tmp_path: Path) -> None:
    holder, waiting = f"holds-{uuid.uuid4()}", f"waits-{uuid.uuid4()}"
    whole = {"entrypoint_resources": {"node:__internal_head__": 1}}  # the head has one
    hook.play(submit({"submission_id": holder, "entrypoint": "sleep 600", **whole}, patience=30))
    until(lambda: status(hook, holder) == "RUNNING")
    entrypoint = f"echo ran >> {tmp_path / 'ran'}"
    body = submission_body(
        waiting,
        entrypoint,
        identity=waiting,
        ti=task_instance(None),
        runtime_env={},
        metadata={},
        reserved=whole,
    )
    hook.play(submit(body, patience=30))
    assert getattr(hook.play(stop(waiting, patience=30)), "status", None) == "PENDING"
    hook.play(stop(holder, patience=30))
    until(lambda: status(hook, waiting) == "STOPPED")
    assert times(tmp_path / "ran") == 0


def test_packages_are_importable_in_the_job(ended: dict[str, Ended]) -> None:
    task = ended["parcel"]
    assert task.state == "success"
    said = re.search(r"\] from (\S+) parcel's \"quotes\"", task.log)
    assert said is not None
    assert said[1].endswith("/ray_parcel/contents.py")
    assert "_ray_pkg_" in said[1]


def test_a_runtime_environment_that_cannot_be_set_up_is_red_and_says_why(ended: dict[str, Ended]) -> None:
    assert ended["no_code"].state == "failed"
    assert "RUNTIME_ENV_SETUP_FAILURE" in ended["no_code"].log


@MODES
def test_a_sensor_sees_the_job_of_another_task_to_its_end(ended: dict[str, Ended], mode: str) -> None:
    reference, good, bad = ended["good"], ended[f"see_good_{mode}"], ended[f"see_bad_{mode}"]
    assert reference.record["state"] == "PENDING"
    assert good.state == "success"
    assert good.record["id"] == reference.record["id"]
    assert good.record["state"] == "SUCCEEDED"
    assert bad.state == "failed"
    assert "; exit code 4\n" in bad.log
    assert "  | broken" in bad.log


def test_one_task_instance_has_one_job_until_that_failed(dag: Dag, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    operators = {
        "good": {"entrypoint": python(good, "")},
        "bad": {"entrypoint": python(bad, f"raise SystemExit(len(open({str(bad)!r}).readlines()) < 2)")},
    }
    first, second = dag.run(**operators), dag.run(**operators)
    assert (first["good"].state, first["bad"].state) == ("success", "failed")
    assert second["good"].record == first["good"].record
    assert "was submitted before and is SUCCEEDED" in second["good"].log
    assert times(good) == 1
    assert second["bad"].state == "success"
    assert second["bad"].record["attempt"] == 2
    assert times(bad) == 2


def test_a_task_whose_worker_died_finds_its_job_again(dag: Dag, tmp_path: Path) -> None:
    ran, go = tmp_path / "ran", tmp_path / "go"
    job = {
        "entrypoint": python(ran, f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.1)")
    }
    worker = dag.start(job=job)
    until(lambda: times(ran) == 1)
    worker.kill()
    worker.wait()
    go.touch()
    again = dag.run(job=job)["job"]
    assert again.state == "success"
    assert "was submitted before" in again.log
    assert times(ran) == 1


def test_a_retry_that_is_not_durable_stops_what_the_earlier_try_left(
    hook: RayJobHook, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    wait = f"[ $(wc -l < {ran}) -gt 1 ] || sleep 600"
    task = RayJobOperator(
        task_id=f"task_{uuid.uuid4().hex[:8]}",
        entrypoint=f"echo ran >> {ran}; {wait}",
        retries=2,
        durable=False,
        poll_interval_seconds=0.5,
    )
    task.wait_for_completion = False
    first = task.execute({"ti": task_instance(task)})
    until(lambda: times(ran) == 1)
    task.wait_for_completion = True
    second = task.execute({"ti": task_instance(task, try_number=2)})
    assert (second["name"], second["attempt"], second["state"]) == (first["name"], 2, "SUCCEEDED")
    assert status(hook, first["id"]) == "STOPPED"
    assert times(ran) == 2


def test_two_workers_that_submit_one_identity_at_once_end_with_one_job(
    hook: RayJobHook, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    body = {"submission_id": f"twice-{uuid.uuid4()}", "entrypoint": f"echo ran >> {ran}"}
    with ThreadPoolExecutor(4) as workers:
        jobs = list(workers.map(lambda _: hook.play(submit(body, patience=30)), range(4)))
    assert {job.submission_id for job in jobs} == {body["submission_id"]}
    until(lambda: status(hook, body["submission_id"]) == "SUCCEEDED")
    assert times(ran) == 1


@MODES
def test_a_job_that_a_person_stops_is_red(dag: Dag, hook: RayJobHook, tmp_path: Path, mode: str) -> None:
    ran = tmp_path / "ran"
    entrypoint = python(ran, "import time; time.sleep(600)")
    process = dag.start(job={"entrypoint": entrypoint, "deferrable": mode == "deferred"})
    until(lambda: times(ran) == 1)
    hook.play(stop(first_attempt(dag, "job"), patience=30))
    task = finish(process)["job"]
    assert task.state == "failed"
    assert ": STOPPED: Job was intentionally stopped." in task.log


def test_killing_the_task_stops_the_job(dag: Dag, hook: RayJobHook, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    process = dag.start(job={"entrypoint": python(ran, "import time; time.sleep(600)")})
    until(lambda: times(ran) == 1)
    process.terminate()
    assert finish(process)["job"].state == "failed"
    assert status(hook, first_attempt(dag, "job")) == "STOPPED"


def test_killing_the_deferred_task_stops_the_job(hook: RayJobHook, tmp_path: Path) -> None:
    submission_id = f"kill-{uuid.uuid4()}"
    hook.play(submit({"submission_id": submission_id, "entrypoint": "sleep 600"}, patience=30))
    trigger = RayJobTrigger(
        submission_id, ray_conn_id="ray", poll_interval_seconds=0.5, unreachable_timeout_seconds=30
    )
    asyncio.run(trigger.cleanup())
    assert status(hook, submission_id) in ("PENDING", "RUNNING")
    asyncio.run(trigger.on_kill())
    assert status(hook, submission_id) == "STOPPED"


def test_a_second_trigger_goes_on_in_the_log_where_the_first_one_stopped(
    hook: RayJobHook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submission_id, go = f"log-{uuid.uuid4()}", tmp_path / "go"
    # Ray itself writes a line at the start, which would land among them.
    lines = "for n in 1 2 3; do echo line $n; done"
    wait = f"until [ -e {go} ]; do sleep 0.1; done"
    entrypoint = f"sleep 1; {lines}; printf 'li'; {wait}; echo ne 4; echo line 5"
    hook.play(submit({"submission_id": submission_id, "entrypoint": entrypoint}, patience=30))
    kept: dict[str, Any] = {}

    async def triggerer(message: Any) -> Any:
        if isinstance(message, SetXCom):
            kept[message.key] = message.value
            return None
        return XComResult(key=message.key, value=kept.get(message.key))

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(asend=triggerer), raising=False)

    def trigger() -> RayJobTrigger:
        trigger = RayJobTrigger(
            submission_id, ray_conn_id="ray", poll_interval_seconds=0.5, unreachable_timeout_seconds=30
        )
        trigger.task_instance = task_instance(None)
        return trigger

    async def events() -> list[Any]:
        return [event.payload async for event in trigger().run()]

    async def until_it_is_killed() -> None:
        task = asyncio.ensure_future(events())
        while not kept.get("ray_job_read", {}).get("log_bytes"):
            await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(asyncio.wait_for(until_it_is_killed(), 60))
    go.touch()
    (event,) = asyncio.run(asyncio.wait_for(events(), 60))
    assert event["job"]["status"] == "SUCCEEDED"
    said = re.findall(r"\] (li.*?) +\[", capsys.readouterr().out)
    assert said == [f"line {n}" for n in range(1, 6)]
    assert event["last_lines"][-5:] == said
