"""The whole system on containers: the sample batch, MPI between hosts, and a batch while containers are lost."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from infra.compose.airflow_api import AirflowApi
from tests.compose.system import System
from tests.faults.conditions import until

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2400)]

BATCH_SECONDS = 1200.0
#: Untrained, so that both batches have the same vectors.
PARAMETERS = {"encoder": "sketch://256?k=11", "verify_overlaps": False}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    system = System()
    try:
        system.up()
        yield system
    finally:
        system.down()


def test_up_returns_a_working_system(system: System) -> None:
    stays = [
        *("s3", "postgres", "ray-head", "ray-worker", "slurm-head", "slurm-node"),
        *("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
    ]
    containers = {service: system.containers(service) for service in stays}
    assert len(containers["slurm-node"]) == 2
    assert {system.health(id) for ids in containers.values() for id in ids} == {"healthy"}


def test_processes_are_run_by_an_ordinary_user(system: System) -> None:
    for service in ("s3", "postgres", "airflow-scheduler", "ray-worker", "slurm-head", "slurm-node"):
        assert system.inside(service, "id", "--user").strip() == "1000", service


def test_sample_batch_ends_right_and_a_second_run_changes_nothing(system: System) -> None:
    first = system.compose("run", "--rm", "sample-batch", timeout=BATCH_SECONDS)
    assert "encoder_retraining" in first
    second = system.compose("run", "--rm", "sample-batch", timeout=BATCH_SECONDS)
    assert "embed_reads: skipped" in second
    table = r"^Batch sample\n(?:  .+\n)+"
    tables = [re.findall(table, output.replace("\r", ""), re.MULTILINE) for output in (first, second)]
    assert tables[0] == tables[1]
    assert re.search(r"^  reads in +65,000$", tables[0][0], re.MULTILINE), first
    assert re.search(r"^  encoder after +registry://kmer-mlp@v", tables[0][0], re.MULTILINE), first


def test_ranks_of_the_kernel_sat_on_different_hosts(system: System) -> None:
    took = system.json("slurm-head", "/fsx/strandloop/batches/sample/knn/metrics.json")
    hosts = {rank["host"] for rank in took["per_rank"]}
    # A container's host name is the beginning of its id.
    assert hosts == {container[:12] for container in system.containers("slurm-node")}
    # Open MPI was told to reach another host by TCP and by nothing else.
    environment = system.inside("slurm-head", "cat", "/fsx/strandloop/environment.sh")
    assert "OMPI_MCA_btl=self,vader,tcp" in environment


def test_batch_ends_right_once_while_containers_are_lost(system: System) -> None:
    airflow = system.airflow()
    _land(system, "calm", "stormy")
    airflow.unpause("genomics_batch")
    calm = airflow.trigger("genomics_batch", {"batch_id": "calm", **PARAMETERS})
    assert _end_of(airflow, calm) == "success"

    stormy = airflow.trigger("genomics_batch", {"batch_id": "stormy", **PARAMETERS})
    _lose_ray_worker_while_it_embeds(system)
    assert airflow.tasks("genomics_batch", stormy)["embed_reads"]["state"] in ("running", "deferred")
    _lose_triggerer_while_it_waits(system, airflow, stormy)
    number = _lose_slurm_node_in_the_kernel(system)
    assert _end_of(airflow, stormy) == "success"

    assert _graph(system, "stormy") == _graph(system, "calm")
    assert " Restarts=1 " in system.inside("slurm-head", "scontrol", "show", "job", number)
    for task_id in ("embed_reads", "wait_similarity"):
        assert airflow.result("genomics_batch", stormy, task_id)["attempt"] == 1, task_id


def _land(system: System, *batch_ids: str) -> None:
    """Land the sample reads, which are enough for an encoder on each of Ray's nodes."""
    reads = "/opt/strandloop/samples/*/*.fq.gz"
    for batch_id in batch_ids:
        put = f"python -m tasks.landing put --data-uri s3://strandloop --batch-id {batch_id} {reads}"
        system.compose("run", "--rm", "sample-batch", "bash", "-c", put)


def _lose_ray_worker_while_it_embeds(system: System) -> None:
    """Freeze the worker once it is at work, so that its work cannot end, and take it away."""
    (worker,) = system.containers("ray-worker")
    until(
        lambda: "ray::MapWorker" in system.docker("top", worker), what="the Ray worker encodes", seconds=600
    )
    system.docker("pause", worker)
    system.docker("kill", worker)


def _lose_triggerer_while_it_waits(system: System, airflow: AirflowApi, run_id: str) -> None:
    (triggerer,) = system.containers("airflow-triggerer")
    until(lambda: "deferred" in _states(airflow, run_id), what="a task waits in the triggerer")
    system.docker("kill", triggerer)
    system.docker("start", triggerer)


def _lose_slurm_node_in_the_kernel(system: System) -> str:
    """Freeze a node once its rank is at work, and take it away; gives the job's number."""
    node = system.containers("slurm-node")[0]
    until(lambda: "hpc_jobs.mpi_dna_seq" in system.docker("top", node), what="a rank runs", seconds=600)
    system.docker("pause", node)
    number = system.inside("slurm-head", "squeue", "--noheader", "--states=RUNNING", "--format=%i").strip()
    system.docker("kill", node)

    def waits() -> bool:
        state = system.inside("slurm-head", "squeue", "--noheader", f"--jobs={number}", "--format=%T")
        return state.strip() == "PENDING"

    until(waits, what="Slurm has noticed the loss and queued the job again")
    system.docker("start", node)
    # Slurm would wait two minutes before it starts the job again.
    system.inside("slurm-head", "scontrol", "update", f"JobId={number}", "StartTime=now")
    return number


def _end_of(airflow: AirflowApi, run_id: str) -> str:
    def final_state() -> str | None:
        state = airflow.state("genomics_batch", run_id)
        return state if state in ("success", "failed") else None

    return until(
        final_state, seconds=BATCH_SECONDS, what=lambda: f"{run_id} ends: {_states(airflow, run_id)}"
    )


def _states(airflow: AirflowApi, run_id: str) -> set[str]:
    return {task["state"] for task in airflow.tasks("genomics_batch", run_id).values()}


def _graph(system: System, batch_id: str) -> dict[str, Any]:
    """The manifest of the batch's graph: names and checksums of its files."""
    url = f"http://127.0.0.1:{system.ports['S3_PORT']}/strandloop/batches/{batch_id}/graph/manifest.json"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return dict(json.load(answer))
