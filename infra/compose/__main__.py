"""``python -m infra.compose``: the sample batch through both phases and the retraining, on the containers.

It runs in a container of its own, ``docker compose run --rm sample-batch``, and does what a user would do: lands
the reads, triggers ``genomics_batch`` through Airflow's REST API, waits, and prints what came of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from infra.compose.airflow_api import POLL_SECONDS, AirflowApi, AirflowApiError

AIRFLOW_URL = "http://airflow-apiserver:8080"
PASSWORD_FILE = Path("/secrets/airflow/admin-password")
SAMPLES = Path("/opt/strandloop/samples")
BATCH_ID = "sample"
#: How long the scheduler may take to start the retraining after the graph was published.
ASSET_SECONDS = 120.0


def main() -> int:
    """Run the sample batch; gives the exit status."""
    where = ["--data-uri", os.environ["STRANDLOOP_DATA_URI"], "--batch-id", BATCH_ID]
    reads = sorted(str(path) for path in SAMPLES.glob("*/*.fq.gz"))
    if landed := subprocess.run([sys.executable, "-m", "tasks.landing", "put", *where, *reads]).returncode:
        return landed
    try:
        airflow = AirflowApi(AIRFLOW_URL, user="admin", password=PASSWORD_FILE.read_text())
        done = _run_batch(airflow)
    except AirflowApiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not done:
        return 1
    print()
    return subprocess.run([sys.executable, "-m", "tasks.summary", *where]).returncode


def _run_batch(airflow: AirflowApi) -> bool:
    """Both DAGs, the second where the first published a graph; tells whether all went well."""
    for dag_id in ("genomics_batch", "encoder_retraining"):
        airflow.unpause(dag_id)
    run_id = airflow.trigger("genomics_batch", {"batch_id": BATCH_ID})
    if not _wait(airflow, "genomics_batch", run_id):
        return False
    if airflow.tasks("genomics_batch", run_id)["publish_graph"]["state"] != "success":
        return True  # the batch was complete already
    deadline = time.monotonic() + ASSET_SECONDS
    while (retraining := airflow.started_by("encoder_retraining", run_id)) is None:
        if time.monotonic() > deadline:
            print(f"error: {run_id} published its graph, but no retraining has started", file=sys.stderr)
            return False
        time.sleep(POLL_SECONDS)
    return _wait(airflow, "encoder_retraining", retraining)


def _wait(airflow: AirflowApi, dag_id: str, run_id: str) -> bool:
    print(f"== {dag_id} {run_id}", flush=True)
    started = time.monotonic()
    for task_id, state in airflow.watch(dag_id, run_id):
        print(f"   {time.monotonic() - started:6.1f} s  {task_id}: {state}", flush=True)
    state = airflow.state(dag_id, run_id)
    if state != "success":
        print(f"error: {run_id} of {dag_id} ended as {state}; its logs are in Airflow", file=sys.stderr)
    return state == "success"


if __name__ == "__main__":
    sys.exit(main())
