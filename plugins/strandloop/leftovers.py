"""What DAG runs have made and tagged, found and removed: ParallelCluster and Ray clusters, Slurm jobs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from strandloop.cluster_jobs import living_jobs
from strandloop.errors import ConnectionBroken
from strandloop.hooks.parallel_cluster import ParallelClusterHook
from strandloop.hooks.slurm import SlurmHook
from strandloop.pcluster import NotFound
from strandloop.run_tag import TAG, RunTag
from strandloop.slurm_commands import cancel

CLUSTER, RAY, JOB = "cluster", "Ray cluster", "Slurm job"

# What ParallelCluster and Ray's autoscaler write on the instances of their clusters.
_CLUSTER_NAME, _RAY_NAME = "parallelcluster:cluster-name", "ray-cluster-name"

log = logging.getLogger(__name__)


def tagged_clusters(hook: ParallelClusterHook) -> list[dict[str, Any]]:
    """Return the clusters that bear a run's tag, each with its instances.

    A Ray cluster is what its instances are; a ParallelCluster one is there without any, too.

    :raises ConnectionBroken: if EC2 does not answer.
    """
    instances = _tagged_instances(hook)
    found = [
        _machines(CLUSTER, cluster.name, cluster.tags, instances, _CLUSTER_NAME)
        for cluster in hook.clusters()
    ]
    for name in sorted({one["tags"][_RAY_NAME] for one in instances if _RAY_NAME in one["tags"]}):
        tags = next(one["tags"] for one in instances if one["tags"].get(_RAY_NAME) == name)
        found.append(_machines(RAY, name, tags, instances, _RAY_NAME))
    return [one for one in found if one["run"]]


def tagged_jobs(slurm_conn_id: str) -> list[dict[str, Any]]:
    """Return the Slurm jobs whose comment names a run; none, with a warning, where Slurm does not answer."""
    try:
        with SlurmHook(slurm_conn_id) as hook:
            jobs = living_jobs(hook, f"connection {slurm_conn_id!r}")
    except ConnectionBroken as error:
        log.warning("its jobs are not looked at: %s", error)
        return []
    return [
        {"kind": JOB, "name": job.id, "run": job.run.value, "slurm_conn_id": slurm_conn_id}
        for job in jobs
        if job.run is not None
    ]


def run_states(ti: Any, found: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Ask Airflow for the state of each run that something was found of; None where there is no such run."""
    states: dict[str, str | None] = {}
    for value in sorted({one["run"] for one in found}):
        run = RunTag.of_tags({TAG: value})
        if run is not None:
            known = ti.get_dr_count(dag_id=run.dag_id, run_ids=[run.run_id])
            states[value] = ti.get_dagrun_state(run.dag_id, run.run_id) if known else None
    return states


def remove(hook: ParallelClusterHook, left: Sequence[Mapping[str, Any]]) -> None:
    """Delete clusters, terminate the instances of Ray clusters, cancel jobs; what is gone already is no error.

    :raises RemoteJobError: if one of them cannot be removed; the others before it are.
    """
    for one in left:
        log.info("removing %s %s: %s", one["kind"], one["name"], one["reason"])
        match one["kind"]:
            case "cluster":
                try:
                    hook.pcluster().call("delete_cluster", cluster_name=one["name"])
                except NotFound:
                    continue
            case "Ray cluster":
                # All at once: a head that lives would start the workers again.
                _terminate(hook, [instance["id"] for instance in one["instances"]])
            case "Slurm job":
                with SlurmHook(one["slurm_conn_id"]) as slurm:
                    slurm.run(cancel(one["name"]))


def _machines(
    kind: str, name: str, tags: Mapping[str, str], instances: Sequence[Mapping[str, Any]], tag: str
) -> dict[str, Any]:
    run = RunTag.of_tags(tags)
    own = [one for one in instances if one["tags"].get(tag) == name]
    return {
        "kind": kind,
        "name": name,
        "run": run.value if run else "",
        "tags": dict(tags),
        "instances": [{key: value for key, value in one.items() if key != "tags"} for one in own],
    }


def _tagged_instances(hook: ParallelClusterHook) -> list[dict[str, Any]]:
    filters = [
        {"Name": "tag-key", "Values": [TAG]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    try:
        pages = list(hook.conn.get_paginator("describe_instances").paginate(Filters=filters))
    except (BotoCoreError, ClientError) as error:
        raise ConnectionBroken(f"EC2 does not list the instances: {error}") from error
    return [
        {
            "id": instance["InstanceId"],
            "instance_type": instance["InstanceType"],
            "launched_at": instance["LaunchTime"].isoformat(),
            "spot": instance.get("InstanceLifecycle") == "spot",
            "tags": {tag["Key"]: tag["Value"] for tag in instance["Tags"]},
        }
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def _terminate(hook: ParallelClusterHook, ids: list[str]) -> None:
    try:
        hook.conn.terminate_instances(InstanceIds=ids)
    except (BotoCoreError, ClientError) as error:
        raise ConnectionBroken(f"EC2 does not end {', '.join(ids)}: {error}") from error
