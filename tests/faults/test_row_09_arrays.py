"""Row 9: arrays."""

from __future__ import annotations

import json

import pytest

from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
MODES = ("sync", "deferred")


def test_an_array_of_20_with_two_failing_elements(world: World) -> None:
    started = {}
    for dag_id in [*(f"slurm_{mode}" for mode in MODES), *(f"slurm_{mode}_sensor" for mode in MODES)]:
        job = world.job()
        body = job.script("case $SLURM_ARRAY_TASK_ID in 7|13) exit 4;; esac")
        started[world.airflow.trigger(dag_id, body=body, array="0-19")] = job
    for run, job in started.items():
        world.row(
            9,
            "array of 20 with two failing elements",
            run,
            job,
            expected="failed",
            jobs=20,
            says="exit code 4",
        )
        log = run.log()
        assert "7" in log.rpartition("JobFailed")[2] and "13" in log.rpartition("JobFailed")[2], log


def test_an_array_of_20_of_which_one_element_is_requeued(world: World) -> None:
    started = []
    for mode in MODES:
        job = world.job()
        first_time = (
            f'if [ "$SLURM_ARRAY_TASK_ID" = 5 ] && [ "${{SLURM_RESTART_COUNT:-0}}" = 0 ]; then {job.wait}; fi'
        )
        script = job.script(first_time, directives="#SBATCH --requeue")
        started.append((world.airflow.trigger(f"slurm_{mode}", body=script, array="0-19"), job))
    for run, job in started:
        until(lambda job=job: len(job.starts) == 20, what="all elements have started")
        number = json.loads((world.job_dir(run) / "submitted.json").read_text())["job_id"]
        world.slurm.run("scontrol", "requeue", f"{number}_5")
        world.slurm.start_requeued(f"{number}_5")
    for run, job in started:
        world.row(9, "array of 20, one element requeued", run, job, expected="success", jobs=21)
