from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from strandloop.errors import InvalidJob, RemoteJobError, StateUnknown
from strandloop.job_identity import job_identity
from strandloop.links.slurm import SlurmJobLink
from strandloop.operators.slurm import RESOURCES, SUBMITTED, SlurmJobOperator
from tests.plugins.strandloop.toy_slurm import Cluster

IDENTITY = job_identity("daily", run_id="run-1", task_id="similarity", map_index=-1, generation=0)


def operator(**arguments: Any) -> SlurmJobOperator:
    return SlurmJobOperator(task_id="similarity", **{"job_root": "/fsx/jobs", "body": "true", **arguments})


def test_resources_become_options_of_sbatch() -> None:
    task = operator(
        partition="compute", nodes=2, ntasks_per_node=4, cpus_per_task=1, mem="4G", time="01:00:00",
        gres="gpu:1", constraint="efa", dependency="afterok:3", signal="B:USR1@60", comment="two words",
        requeue=False,
    )  # fmt: skip
    assert task.options() == [
        "--partition=compute", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=1", "--mem=4G",
        "--time=01:00:00", "--gres=gpu:1", "--constraint=efa", "--dependency=afterok:3",
        "--signal=B:USR1@60", "--comment=two words", "--no-requeue",
    ]  # fmt: skip


def test_what_is_not_given_is_left_to_the_script_and_the_cluster() -> None:
    assert operator(partition="").options() == []


def test_every_templated_field_is_rendered() -> None:
    with DAG("d", schedule=None):
        task = operator(
            body="echo {{ who }}",
            script_args=["{{ who }}", "--k={{ k }}"],
            ssh_conn_id="slurm_{{ who }}",
            job_root="/fsx/{{ who }}",
            environment={"WHO": "{{ who }}"},
            array="0-{{ k }}",
            **dict.fromkeys(RESOURCES, "{{ who }}"),
        )
    task.render_template_fields({"who": "x", "k": 10})  # type: ignore[typeddict-unknown-key,typeddict-item]
    assert (task.body, task.script_args, task.ssh_conn_id) == ("echo x", ["x", "--k=10"], "slurm_x")
    assert (task.job_root, task.environment) == ("/fsx/x", {"WHO": "x"})
    assert {getattr(task, name) for name in RESOURCES} == {"x"} and task.array == "0-10"
    own = {"script", "body", "script_args", "ssh_conn_id", "job_root", "environment", "array"}
    assert set(task.template_fields) == own | set(RESOURCES)
    assert all(hasattr(task, name) for name in task.template_fields)


def test_one_of_script_and_body_is_needed() -> None:
    for arguments in ({"body": None}, {"script": "/x.sbatch"}):
        with pytest.raises(ValueError, match="either script or body"):
            operator(**arguments)


def test_a_script_is_read_from_an_absolute_path(tmp_path: Path) -> None:
    path = tmp_path / "x.sbatch"
    path.write_text("echo x\n")
    assert operator(body=None, script=str(path)).script_text() == "echo x\n"
    for wrong, words in (("x.sbatch", "absolute"), (f"{path}.not", "cannot be read")):
        with pytest.raises(InvalidJob, match=words):
            operator(body=None, script=wrong).script_text()


def test_has_a_link_to_the_log() -> None:
    (link,) = operator().operator_extra_links
    assert isinstance(link, SlurmJobLink) and link.name == "Slurm job log"


@dataclass
class TaskInstance:
    """What the operator reads of a running task instance."""

    task: SlurmJobOperator
    dag_id: str = "daily"
    run_id: str = "run-1"
    task_id: str = "similarity"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 0
    id: str = "try-1"
    state: str = "running"
    pushed: dict[str, str] = field(default_factory=dict)

    def xcom_push(self, key: str, value: str) -> None:
        self.pushed[key] = value

    def get_task_states(self, **_: Any) -> dict[str, dict[str, str]]:
        return {self.run_id: {self.task_id: self.state}}


class Store(dict):
    set = dict.__setitem__


class ToyHook:
    """Runs commands on the toy cluster, as the hook does over SSH."""

    cluster: Cluster

    def __init__(self, ssh_conn_id: str) -> None:
        self.run = self.cluster.run

    def __enter__(self) -> ToyHook:
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def url(self, path: str) -> str:
        return f"sftp://login{path}"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr("strandloop.operators.slurm.SlurmHook", ToyHook)
    ToyHook.cluster = Cluster(tmp_path)
    yield ToyHook.cluster
    del ToyHook.cluster


def submit(
    cluster: Cluster, *, store: Store | None = None, ti: dict[str, Any] | None = None, **arguments: Any
) -> Any:
    """Let a task that does not wait submit its job; return its record and its task instance."""
    given = {"wait_for_completion": False, "unknown_timeout_seconds": 3, **arguments}
    task = operator(job_root=str(cluster.root / "fsx"), **given)
    instance = TaskInstance(task, **(ti or {}))
    context: Any = {"ti": instance}
    if store is not None:
        context["task_state_store"] = store
    return task.execute(context), instance


def test_an_array_of_the_argument_or_of_the_script(cluster: Cluster) -> None:
    record, instance = submit(cluster, body="#!/bin/bash\n#SBATCH --array=1-3\ntrue", array="0-9%2")
    assert record["array"] == "0-9%2"
    assert list(instance.pushed.values()) == [f"sftp://login{record['job_dir']}"]
    record, _ = submit(
        cluster, body="#!/bin/bash\n#SBATCH --array=1-3\ntrue", array="", ti={"run_id": "run-2"}
    )
    assert record["array"] == "1-3"
    record, instance = submit(cluster, ti={"run_id": "run-3"})
    assert "array" not in record
    assert list(instance.pushed.values()) == [f"sftp://login{record['job_dir']}/job.log"]


def test_the_store_remembers_what_was_submitted_and_a_wiped_cluster_is_noticed(cluster: Cluster) -> None:
    store = Store()
    record, _ = submit(cluster, store=store)
    assert store[SUBMITTED] == {
        "identity": IDENTITY, "attempt": 1, "job_id": record["id"], "cluster": record["cluster"],
    }  # fmt: skip
    (cluster.root / "fsx").rename(cluster.root / "lost")
    (cluster.root / "jobs" / "1").unlink()
    with pytest.raises(StateUnknown, match="Clear the task"):
        submit(cluster, store=store)
    assert cluster.states() == []
    # Cleared: what is remembered is another job's. Without a store nothing is remembered.
    assert submit(cluster, store=store, ti={"max_tries": 1})[0]["attempt"] == 1
    assert submit(cluster)[0]["attempt"] == 1


@pytest.mark.parametrize("durable", [True, False])
def test_a_retry_attaches_or_starts_anew(cluster: Cluster, durable: bool) -> None:
    first, _ = submit(cluster, durable=durable)
    second, _ = submit(cluster, durable=durable)
    assert (first["id"] == second["id"]) is durable
    assert cluster.states() == (["RUNNING"] if durable else ["GONE", "RUNNING"])


def test_a_clear_cancels_the_old_job_before_it_submits_another(cluster: Cluster) -> None:
    submit(cluster)
    (cluster.root / "jobs" / "1").write_text(f"{IDENTITY}|PENDING|Priority\n")
    record, _ = submit(cluster, ti={"max_tries": 1})
    assert record["name"] != IDENTITY and cluster.states() == ["GONE", "RUNNING"]


def test_a_clear_submits_nothing_while_nobody_can_tell_whether_the_old_job_lives(cluster: Cluster) -> None:
    submit(cluster)
    (cluster.root / "down").touch()
    with pytest.raises(StateUnknown, match="nothing is submitted beside it"):
        submit(cluster, ti={"max_tries": 1})
    assert cluster.states() == ["RUNNING"]


@pytest.mark.parametrize(("state", "lives"), [("running", False), ("failed", False), ("up_for_retry", True)])
def test_a_task_that_is_ended_cancels_its_job_unless_another_try_has_taken_over(
    cluster: Cluster, state: str, lives: bool
) -> None:
    _, instance = submit(cluster)
    instance.state = state
    instance.task.on_kill()
    assert cluster.states() == ["RUNNING" if lives else "GONE"]


def test_a_task_that_is_ended_while_it_submits_leaves_no_held_job(cluster: Cluster) -> None:
    """Airflow calls on_kill in the middle of sbatch, when there is nothing to cancel yet."""
    tasks: list[SlurmJobOperator] = []

    def kill(when: str, words: str) -> None:
        if when == "before" and "sbatch --" in words:
            cluster.breaks = lambda when, words: None
            tasks[0].on_kill()

    cluster.breaks = kill
    task = operator(job_root=str(cluster.root / "fsx"), unknown_timeout_seconds=3)
    tasks.append(task)
    context: Any = {"ti": TaskInstance(task)}
    with pytest.raises(RemoteJobError, match="was ended while it worked"):
        task.execute(context)
    assert cluster.states() == ["GONE"]
