"""Row 4: the job ended and was forgotten by the controller before anybody looked again."""

from __future__ import annotations

import pytest

from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_a_job_that_the_controller_has_forgotten(world: World) -> None:
    started = {}
    for mode in ("sync", "deferred"):
        for ending, expected in (("exit 0", "success"), ("exit 3", "failed")):
            job = world.job()
            body = job.script(f"{job.wait}\n[ '{ending}' = 'exit 0' ] || {ending}")
            started[mode, expected] = (world.airflow.trigger(f"slurm_{mode}", body=body), job)
    world.until_seen_running(*started.values())
    with world.ssh.down():
        for _, job in started.values():
            job.go()
        for _, job in started.values():
            world.slurm.wait_until_forgotten(job.starts[0])
    for (_, expected), (run, job) in started.items():
        says = "" if expected == "success" else "exit code 3"
        fault = f"ended {'green' if expected == 'success' else 'red'} and forgotten before the next poll"
        world.row(4, fault, run, job, expected=expected, says=says)
