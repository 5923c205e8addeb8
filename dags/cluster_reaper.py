"""Every hour: what daily batches have left behind is reported and, by choice, removed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from strandloop.final_errors import fail_once


@dag(
    schedule="@hourly",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={
        "remove": Param(
            False,
            type="boolean",
            title="Remove",
            description="Delete the clusters (with all that runs on them), end the Ray clusters' machines and "
            "cancel the jobs that are left over. Off: they are only reported.",
        ),
        "aws_conn_id": Param(
            "aws_default",
            type=["null", "string"],
            title="AWS connection",
            description="Empty: clusters are not looked at.",
        ),
        "slurm_conn_id": Param(
            "slurm",
            type=["null", "string"],
            title="SSH connection of a Slurm login node",
            description="Of a Slurm that stays. Empty: jobs are not looked at.",
        ),
    },
    tags=["strandloop"],
    default_args={"owner": "strandloop", "retries": 2, "retry_delay": timedelta(minutes=2)},
    doc_md="""
### Cluster reaper
Looks for clusters, Ray clusters and Slurm jobs that bear the tag of a DAG run which has ended, or whose budget is
spent. The log names each with its reason; with `remove` they are removed.
""",
)
def cluster_reaper() -> None:
    """Wire the reaper; see the module docstring."""

    @task
    @fail_once
    def find_leftovers(params: Any = None, ti: Any = None) -> list[dict[str, Any]]:
        from strandloop.hooks.parallel_cluster import ParallelClusterHook
        from strandloop.leftovers import run_states, tagged_clusters, tagged_jobs
        from tasks.reaper import leftovers

        aws, slurm = params["aws_conn_id"], params["slurm_conn_id"]
        found = tagged_clusters(ParallelClusterHook(aws)) if aws else []
        found += tagged_jobs(slurm) if slurm else []
        return leftovers(found, run_states(ti, found))

    @task
    @fail_once
    def remove_leftovers(left: list[dict[str, Any]], params: Any = None) -> None:
        from strandloop.hooks.parallel_cluster import ParallelClusterHook
        from strandloop.leftovers import remove

        remove(ParallelClusterHook(params["aws_conn_id"]), left if params["remove"] else [])

    remove_leftovers(find_leftovers())


cluster_reaper()
