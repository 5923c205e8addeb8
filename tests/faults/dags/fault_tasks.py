"""The DAGs of the fault matrix: one remote job each, whose body comes with the run's configuration.

Each task notes its process and that of its supervisor (the executor's worker) in ``$FAULT_PIDS``, so that a
test can kill them.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG

from strandloop.operators.parallel_cluster import ParallelClusterCreateOrUpdateOperator
from strandloop.operators.ray_jobs import RayJobOperator
from strandloop.operators.slurm import SlurmJobOperator
from strandloop.sensors.slurm import SlurmJobSensor

CONF = "{{ dag_run.conf['%s'] }}"
OPTIONAL = "{{ dag_run.conf.get('%s', '') }}"


def note_process(context: Any) -> None:
    """Write down which processes this try consists of."""
    ti = context["ti"]
    note = {"try": ti.try_number, "task": os.getpid(), "worker": os.getppid()}
    path = Path(os.environ["FAULT_PIDS"]) / f"{ti.dag_id}.{ti.run_id}.{ti.task_id}.json"
    path.with_suffix(".part").write_text(json.dumps(note))
    path.with_suffix(".part").replace(path)


SLURM = {
    "body": CONF % "body",
    "job_root": os.environ["FAULT_JOB_ROOT"],
    "partition": OPTIONAL % "partition",
    "mem": "{{ dag_run.conf.get('mem', '64M') }}",  # many side by side
    "time": OPTIONAL % "time",
    "array": OPTIONAL % "array",
    "poll_interval_seconds": 1,
    "unknown_timeout_seconds": 90,
    "pre_execute": note_process,
}
RAY = {
    "entrypoint": CONF % "body",
    "poll_interval_seconds": 1,
    "unreachable_timeout_seconds": 90,
    "pre_execute": note_process,
}
WAITS = {"sync": False, "deferred": True}
TRIES = {"": 0, "_retried": 3}
LIMITS = {"queue_timeout_seconds": 5, "run_timeout_seconds": 5}


def dag(dag_id: str, *, retries: int = 0, schedule: str | None = None) -> DAG:
    """A DAG that runs only when it is told to, as its schedule has ended; any number of its runs at once."""
    return DAG(
        dag_id,
        schedule=schedule,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        end_date=datetime(2026, 6, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=64,
        default_args={"retries": retries, "retry_delay": timedelta(seconds=1)},
    )


for wait, deferrable in WAITS.items():
    for suffix, retries in TRIES.items():
        with dag(f"slurm_{wait}{suffix}", retries=retries):
            SlurmJobOperator(task_id="job", deferrable=deferrable, **SLURM)
        with dag(f"ray_{wait}{suffix}", retries=retries):
            RayJobOperator(task_id="job", deferrable=deferrable, **RAY)
    with dag(f"ray_{wait}_environment"):
        environment = {"working_dir": CONF % "working_dir"}
        RayJobOperator(task_id="job", deferrable=deferrable, runtime_env=environment, **RAY)
    with dag(f"slurm_{wait}_limits"):
        SlurmJobOperator(task_id="job", deferrable=deferrable, **SLURM, **LIMITS)
    with dag(f"slurm_{wait}_script"):
        script = {name: value for name, value in SLURM.items() if name != "body"}
        SlurmJobOperator(task_id="job", deferrable=deferrable, script=CONF % "script", **script)
    with dag(f"slurm_{wait}_sensor"):
        submitted = SlurmJobOperator(task_id="submit", wait_for_completion=False, **SLURM)
        SlurmJobSensor(
            task_id="job",
            job=submitted.output,
            deferrable=deferrable,
            poke_interval=1,
            pre_execute=note_process,
        )

with dag("slurm_at_default_pace"):
    default = {name: value for name, value in SLURM.items() if name != "poll_interval_seconds"}
    SlurmJobOperator(task_id="job", deferrable=True, **default)
with dag("cluster_retried", retries=3):
    ParallelClusterCreateOrUpdateOperator(
        task_id="job",
        cluster_name="c",
        configuration=CONF % "body",
        ssh_conn_id="cluster_key",
        deferrable=True,
        poll_interval_seconds=0.5,
        pre_execute=note_process,
    )
with dag("slurm_daily", schedule="@daily"):
    SlurmJobOperator(task_id="job", deferrable=True, **{**SLURM, "body": OPTIONAL % "body"})
