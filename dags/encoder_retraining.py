"""The loop: published similarity graphs retrain the encoder; the better one is promoted."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Asset, Param, dag, task

from strandloop.final_errors import fail_once
from strandloop.operators.ray_jobs import RayJobOperator

SIMILARITY_GRAPH = Asset("strandloop_similarity_graph")

DATA_URI = os.environ.get("STRANDLOOP_DATA_URI", "s3://strandloop")

BATCH_ID_PATTERN = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

PARAMS = {
    "batch_id": Param(
        None,
        type=["null", "string"],
        pattern=BATCH_ID_PATTERN,
        title="Batch id",
        description="Learn from this batch alone, whatever its size. Empty: from the batches that wait; a run that "
        "a new graph starts does so.",
    ),
    "data_uri": Param(DATA_URI, type="string", pattern="^s3://[^/]+(/[^/]+)*$", title="Data"),
    "min_new_reads": Param(
        10_000,
        type="integer",
        minimum=0,
        title="Fewest new reads",
        description="Batches wait until together they have so many reads that nobody learnt from yet. A tenth of "
        "them decides on the promotion.",
    ),
    "approval": Param(
        False,
        type="boolean",
        title="Ask before a promotion",
        description="An encoder that is better waits for a person's approval in the Airflow UI.",
    ),
    "reembed": Param(
        [],
        type="array",
        items={"type": "string", "pattern": BATCH_ID_PATTERN},
        title="Batches to embed anew",
        description="If an encoder is promoted, these batches are computed anew with it. Vectors of two versions "
        "cannot be compared.",
    ),
    "workers": Param(
        1,
        type="integer",
        minimum=1,
        maximum=64,
        title="Workers that train together",
        description="Each draws pairs of its own, so that a step sees so many times as many.",
        section="Training",
    ),
    "tune": Param(
        False,
        type="boolean",
        title="Search for a better plan first",
        description="Ray Tune tries learning rates, temperatures and steps on a part of the training reads.",
        section="Training",
    ),
    "tune_trials": Param(4, type="integer", minimum=1, maximum=1000, title="Trials", section="Training"),
    "tune_budget_usd": Param(
        1.0,
        type="number",
        exclusiveMinimum=0,
        title="Dollars that the search may cost",
        section="Training",
    ),
    "instance_type": Param(
        "c7i.2xlarge",
        type="string",
        title="Instance type of a Ray worker",
        description="Whose price the search counts with.",
        section="Training",
    ),
    "ray_conn_id": Param("ray", type="string", title="HTTP connection of the Ray cluster"),
}


@dag(
    schedule=[SIMILARITY_GRAPH],
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
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
Trains the encoder on the neighbours and chains that batches found, compares old and new on held-out reads and on
labelled panels, registers the new version with its card, and promotes it only if it is measurably better and
nowhere worse. The decision and its numbers are in `batches/<batch id>/retraining/`.

Small batches wait until there are enough reads. With *Ask before a promotion* a person has the last word.
""",
)
def encoder_retraining() -> None:
    """Wire the retraining; see the module docstring."""

    @task
    @fail_once
    def training_jobs(params: Any = None, triggering_asset_events: Any = None) -> list[list[str]]:
        from tasks.learning.request import options, training_jobs

        return training_jobs(
            params["data_uri"],
            params["batch_id"],
            [event.extra for event in triggering_asset_events[SIMILARITY_GRAPH]],
            min_new_reads=params["min_new_reads"],
            options=options(params),
        )

    @task
    @fail_once
    def outcomes(jobs: list[list[str]]) -> list[dict[str, Any]]:
        from tasks.learning.proposals import outcomes

        return outcomes(jobs)

    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def proposals(outcomes: list[dict[str, Any]], params: Any = None) -> list[dict[str, Any]]:
        return [each for each in outcomes if params["approval"] and each["better"] and not each["promoted"]]

    approve = ApprovalOperator(
        task_id="approve",
        subject="Promote the retrained encoder?",
        body="{% for each in ti.xcom_pull('proposals') %}"
        "{{ each.encoder_after }} in the place of {{ each.encoder_before }}: {{ each.reason }}\n\n"
        "{% endfor %}",
        retries=0,
    )

    @task
    @fail_once
    def promote(proposals: list[dict[str, Any]]) -> list[str]:
        from tasks.learning.proposals import promote_approved

        return promote_approved(proposals)

    @task(trigger_rule="none_failed")
    @fail_once
    def batches_to_reembed(
        outcomes: list[dict[str, Any]], promoted: list[str] | None, params: Any = None
    ) -> list[dict[str, Any]]:
        if not promoted and not any(each["promoted"] for each in outcomes or []):
            return []
        from tasks.reembedding import reembedding_runs

        return reembedding_runs(params["data_uri"], params["reembed"])

    jobs = training_jobs()
    retrain = RayJobOperator.partial(
        task_id="retrain",
        packages=["tasks", "hpc_jobs"],
        ray_conn_id="{{ params.ray_conn_id }}",
        no_retry_exit_codes=[65],  # the batch is at fault
        deferrable=True,
        max_active_tis_per_dag=1,
    ).expand(entrypoint=jobs)
    known = outcomes(jobs)
    proposed = proposals(known)
    promoted = promote(proposed)
    reembed = TriggerDagRunOperator.partial(task_id="reembed", trigger_dag_id="genomics_batch").expand(
        conf=batches_to_reembed(known, promoted)
    )
    retrain >> known
    proposed >> approve >> promoted >> reembed


encoder_retraining()
