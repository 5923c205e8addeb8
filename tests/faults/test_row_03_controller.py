"""Row 3: the controller is away for a minute, or comes back without its memory."""

from __future__ import annotations

import time

import pytest

from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
OUTAGE_SECONDS = 60.0


def test_a_controller_that_is_down_for_a_minute(world: World) -> None:
    started = {}
    for mode in ("sync", "deferred"):
        for name, ending in {"goes on": "", "ends green": "", "ends red": "exit 1"}.items():
            job = world.job()
            started[name, mode] = (
                world.airflow.trigger(f"slurm_{mode}", body=job.script(f"{job.wait}\n{ending}")),
                job,
            )
    world.until_seen_running(*started.values())
    with world.slurm.controller_down():
        down_until = time.monotonic() + OUTAGE_SECONDS
        for (name, _), (_, job) in started.items():
            if name != "goes on":
                job.go()
        for mode in ("sync", "deferred"):
            job = world.job()
            started["submits", mode] = (world.airflow.trigger(f"slurm_{mode}", body=job.script()), job)
        until(lambda: time.monotonic() > down_until, what="the outage is over")
    for (name, _), (run, job) in started.items():
        job.go()
        fault = {
            "goes on": "slurmctld down for a minute, the job goes on",
            "ends green": "slurmctld down for a minute, the job ends green",
            "ends red": "slurmctld down for a minute, the job ends red",
            "submits": "slurmctld down at submit",
        }[name]
        expected = "failed" if name == "ends red" else "success"
        world.row(3, fault, run, job, expected=expected)


def test_a_controller_that_comes_back_without_its_memory(world: World) -> None:
    """One job had ended well, one goes on; then the numbers are given to jobs of somebody else."""
    ended, goes_on = world.job(), world.job()
    ended_run = world.airflow.trigger("slurm_deferred", body=ended.script(ended.wait))
    goes_on_run = world.airflow.trigger("slurm_deferred", body=goes_on.script(goes_on.wait))
    world.until_seen_running((ended_run, ended), (goes_on_run, goes_on))
    numbers = [job.starts[0] for job in (ended, goes_on)]
    with world.ssh.down():
        ended.go()
        until(lambda: (world.job_dir(ended_run) / "exit.json").exists(), what="the job has ended")
        world.slurm.forget_all_jobs()
        # Somebody else's jobs get the numbers from 1 on; none of them may be taken for ours.
        while world.slurm.job_of_somebody_else() < max(map(int, numbers)):
            pass
    fault = "slurmctld's state wiped"
    world.row(3, f"{fault}, the job had ended green", ended_run, ended, expected="success")
    world.row(3, f"{fault}, the job went on", goes_on_run, goes_on, expected="failed")
