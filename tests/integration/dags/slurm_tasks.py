"""A DAG of SlurmJobOperators and SlurmJobSensors; as a script it runs itself by ``dag.test()``.

What it is made of stands in the environment variable SLURM_TASKS, as JSON: ``{"dag_id": ..., "operators":
{task_id: arguments}, "sensors": {task_id: [task_id of the operator, arguments]}, "cluster": whether the
cluster is ensured before and released after}``. The last line that the script prints is JSON: ``{task_id:
[state, return value]}``.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime

from airflow.sdk import DAG

from strandloop.operators.parallel_cluster import EnsureClusterOperator, ReleaseClusterOperator
from strandloop.operators.slurm import SlurmJobOperator
from strandloop.sensors.slurm import SlurmJobSensor

CASE = json.loads(os.environ["SLURM_TASKS"])
# The run id follows from the date, so two runs of the script are the same task instances.
WHEN = datetime(2026, 11, 20, tzinfo=UTC)

with DAG(CASE["dag_id"], schedule=None, default_args={"retries": 0}) as dag:
    jobs = {
        task_id: SlurmJobOperator(task_id=task_id, **arguments)
        for task_id, arguments in CASE["operators"].items()
    }
    for task_id, (of, arguments) in CASE["sensors"].items():
        SlurmJobSensor(task_id=task_id, job=jobs[of].output, **arguments)
    if CASE["cluster"]:
        release = ReleaseClusterOperator(task_id="release", trigger_rule="all_done")
        EnsureClusterOperator(task_id="cluster") >> list(jobs.values()) >> release

if __name__ == "__main__":
    run = dag.test(logical_date=WHEN, run_after=WHEN)
    ends = {ti.task_id: [str(ti.state), ti.xcom_pull(task_ids=ti.task_id)] for ti in run.get_task_instances()}
    print(json.dumps(ends), flush=True)
