"""The loop: every published similarity graph retrains the encoder; the better one is promoted."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import Asset, Param, dag, task

from strandloop.operators.ray_jobs import RayJobOperator

SIMILARITY_GRAPH = Asset("strandloop_similarity_graph")

DATA_URI = os.environ.get("STRANDLOOP_DATA_URI", "s3://strandloop")


@dag(
    schedule=[SIMILARITY_GRAPH],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params={
        "batch_id": Param(
            None,
            type=["null", "string"],
            pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            title="Batch id",
            description="Needed when triggered by hand; a run that a new graph starts takes it from there.",
        ),
        "data_uri": Param(DATA_URI, type="string", pattern="^s3://[^/]+(/[^/]+)*$", title="Data"),
        "ray_conn_id": Param("ray", type="string", title="HTTP connection of the Ray cluster"),
    },
    tags=["strandloop", "genomics"],
    default_args={
        "owner": "strandloop",
        "retries": 2,
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=15),
    },
    doc_md="""
### Encoder retraining
Trains the batch's encoder on the neighbours that the batch found, evaluates old and new on held-out reads,
registers the new version with its card, and promotes it only if it is measurably better. The decision and its
numbers are in `batches/<batch id>/retraining/`.
""",
)
def encoder_retraining() -> None:
    """Wire the retraining; see the module docstring."""

    @task
    def training_jobs(params: Any = None, triggering_asset_events: Any = None) -> list[list[str]]:
        from tasks.learning.request import training_jobs

        published = [event.extra for event in triggering_asset_events[SIMILARITY_GRAPH]]
        return training_jobs(params["data_uri"], params["batch_id"], published)

    RayJobOperator.partial(
        task_id="retrain",
        packages=["tasks", "hpc_jobs"],
        ray_conn_id="{{ params.ray_conn_id }}",
        no_retry_exit_codes=[65],  # the batch is at fault
        deferrable=True,
        max_active_tis_per_dag=1,
    ).expand(entrypoint=training_jobs())


encoder_retraining()
