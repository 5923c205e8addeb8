"""Deferred sensors, one for each job of a list: what the benchmark of waiting puts before a triggerer."""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow.sdk import DAG

from strandloop.sensors.slurm import SlurmJobSensor

with DAG("waiting", schedule=None):
    SlurmJobSensor.partial(task_id="wait", deferrable=True).expand(
        job=json.loads(Path(os.environ["BENCH_JOBS"]).read_text())
    )
