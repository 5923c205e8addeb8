"""Clusters behind the process boundary, instances in moto's EC2, jobs behind a real SSH server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from strandloop.hooks.parallel_cluster import ParallelClusterHook
from strandloop.leftovers import remove, run_states, tagged_clusters, tagged_jobs
from strandloop.run_tag import TAG, RunTag
from tests.plugins.strandloop.played_pcluster import ACCEPTED, PlayedPcluster, described, played_pcluster
from tests.plugins.strandloop.ssh_server import ssh_server

OURS, OTHER = RunTag("genomics_batch", "manual__1"), RunTag("genomics_batch", "manual__2")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[PlayedPcluster, Any]]:
    """A played ParallelCluster, and a client of an EC2 without instances."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with ssh_server() as head, played_pcluster(tmp_path, head.connection) as (played, environment):
        extra = {"region_name": "us-east-1", "endpoint_url": url}
        aws = {"conn_type": "aws", "login": "AKIDEXAMPLE", "password": "wJalrXUtnFEMI", "extra": extra}
        environment |= {"AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws), "AIRFLOW_CONN_SLURM": head.connection}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
        keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI"}
        yield played, boto3.client("ec2", region_name="us-east-1", endpoint_url=url, **keys)
    server.stop()


def start(ec2: Any, count: int, **tags: str) -> list[str]:
    specification = {"ResourceType": "instance", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}
    started = ec2.run_instances(
        ImageId="ami-12c6146b",
        MinCount=count,
        MaxCount=count,
        InstanceType="m7i.xlarge",
        TagSpecifications=[specification],
    )
    return [instance["InstanceId"] for instance in started["Instances"]]


def test_what_is_tagged_is_found_and_removed_and_nothing_else(world: tuple[PlayedPcluster, Any]) -> None:
    pcluster, ec2 = world
    tag = {TAG: OURS.value}
    start(ec2, 2, **tag, **{"parallelcluster:cluster-name": "ours"})
    ray = start(ec2, 3, **tag, **{"ray-cluster-name": "embedders"})
    foreign = start(ec2, 1, **{"ray-cluster-name": "of-others"})
    names = [{"clusterName": "ours"}, {"clusterName": "theirs"}]
    pcluster.answers("list_clusters", {"result": {"clusters": names}})
    ours, theirs = (
        described("CREATE_COMPLETE", name="ours", tags=tag),
        described("CREATE_COMPLETE", name="theirs"),
    )
    pcluster.answers("describe_cluster", ours, theirs)
    pcluster.answers("delete_cluster", ACCEPTED)
    pcluster.queue(f"7|RUNNING|ec2-user|{OURS.comment}", "8|RUNNING|ann|(null)")

    hook = ParallelClusterHook()
    found = [*tagged_clusters(hook), *tagged_jobs("slurm")]
    assert [(one["kind"], one["name"], one["run"]) for one in found] == [
        ("cluster", "ours", OURS.value),
        ("Ray cluster", "embedders", OURS.value),
        ("Slurm job", "7", OURS.value),
    ]
    assert [len(one.get("instances", ())) for one in found] == [2, 3, 0]
    json.dumps(found)  # it goes on by XCom

    cancelled = pcluster.folder / "cancelled"
    scancel = pcluster.folder / "bin" / "scancel"
    scancel.write_text(f'#!/bin/sh\necho "$@" >> {cancelled}\n')
    scancel.chmod(0o755)
    remove(hook, [{**one, "reason": "its run has ended"} for one in found])
    assert [request["arguments"]["cluster_name"] for request in pcluster.asked("delete_cluster")] == ["ours"]
    assert cancelled.read_text() == "7\n"
    states = {
        instance["InstanceId"]: instance["State"]["Name"]
        for reservation in ec2.describe_instances()["Reservations"]
        for instance in reservation["Instances"]
    }
    assert {states[one] for one in ray} == {"terminated"}
    assert states[foreign[0]] == "running"
    assert list(states.values()).count("running") == 3

    (pcluster.folder / "bin" / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert tagged_jobs("slurm") == []  # a Slurm that does not answer does not hide the rest


class TaskInstance:
    """Knows one run."""

    def get_dr_count(self, *, dag_id: str, run_ids: list[str]) -> int:
        return int((dag_id, run_ids) == (OURS.dag_id, [OURS.run_id]))

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        assert (dag_id, run_id) == (OURS.dag_id, OURS.run_id)
        return "success"


def test_the_states_of_the_runs() -> None:
    found = [{"run": OURS.value}, {"run": OTHER.value}, {"run": OURS.value}]
    assert run_states(TaskInstance(), found) == {OURS.value: "success", OTHER.value: None}
