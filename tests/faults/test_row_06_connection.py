"""Row 6: the SSH connection breaks, or the host is another one."""

from __future__ import annotations

import pytest

from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
MODES = ("sync", "deferred")


def test_connections_are_cut_and_sshd_is_restarted_while_jobs_run(world: World) -> None:
    started = {}
    for mode in MODES:
        job = world.job()
        started[mode] = (world.airflow.trigger(f"slurm_{mode}", body=job.script(job.wait)), job)
    world.until_seen_running(*started.values())
    for times in range(3):
        until(lambda: world.ssh.connections, what=f"somebody is connected before cut {times + 1}")
        assert world.ssh.cut()
    until(lambda: world.ssh.connections, what="somebody is connected again")
    world.login.start_sshd()
    for run, job in started.values():
        job.go()
        world.row(6, "SSH cut while polling, sshd restarted", run, job, expected="success")


def test_the_connection_is_cut_after_sbatch_ran_and_before_its_answer_came(world: World) -> None:
    started = []
    for mode in MODES:
        job = world.job()
        run = world.airflow.trigger(f"slurm_{mode}", body=job.script())
        started.append((run, job, world.login.holds_after("sbatch", match=world.identities(run)[0])))
    for _, _, sbatch in started:
        sbatch.wait_until_arrived()
    assert world.ssh.cut()
    for run, job, sbatch in started:
        sbatch.open()
        world.row(6, "SSH cut after sbatch, before its answer", run, job, expected="success")


def test_another_host_key_is_refused(world: World) -> None:
    """While a task waits, and before one submits; the host is what it was again afterwards."""
    waiting, unsubmitted = world.job(), world.job()
    run = world.run_seen_running("slurm_deferred", waiting, waiting.script(waiting.wait))
    with world.login.another_host_key():
        world.ssh.cut()
        later = world.airflow.trigger("slurm_sync", body=unsubmitted.script())
        assert run.wait_for("failed", "success") == "failed"
        waiting.go()  # what was refused could not be cancelled either: the job ends by itself
        world.row(6, "host key changed while waiting", run, waiting, expected="failed", says="another key")
        world.row(
            6,
            "host key changed before submit",
            later,
            unsubmitted,
            expected="failed",
            jobs=0,
            says="another key",
        )
