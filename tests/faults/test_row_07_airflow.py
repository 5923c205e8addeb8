"""Row 7: parts of Airflow are killed."""

from __future__ import annotations

import pytest

from infra.local.process_table import find_process
from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
MODES = ("sync", "deferred")


def test_workers_are_killed(world: World) -> None:
    """Before they submit, between submit and store, and while they poll; the next try goes on from there."""
    faults = {
        "before submit": ("squeue", world.login.holds_before),
        "between submit and store": ("sbatch", world.login.holds_after),
    }
    held = []
    for fault, (command, hold) in faults.items():
        for mode in MODES:
            job = world.job()
            run = world.airflow.trigger(f"slurm_{mode}_retried", body=job.script())
            held.append((fault, run, job, hold(command, match=world.identities(run)[0])))
    polling = world.job()
    polling_run = world.run_seen_running("slurm_sync_retried", polling, polling.script(polling.wait))
    polling_run.kill_worker()
    for _, run, _, gate in held:
        gate.wait_until_arrived()
        run.kill_worker()
        gate.open()
    until(lambda: "attaching to job" in polling_run.log(), what="the next try has found the job")
    polling.go()
    world.row(7, "worker killed while polling synchronously", polling_run, polling, expected="success")
    for fault, run, job, _ in held:
        world.row(7, f"worker killed {fault}", run, job, expected="success")


def test_the_triggerer_is_killed_while_a_task_is_deferred(world: World) -> None:
    """The log goes on where it was: no line is lost, and none comes twice."""
    job = world.job()
    lines = 'for n in $(seq {} {}); do echo "line $n of the log"; done'
    body = job.script(f"{lines.format(1, 20)}\n{job.wait}\n{lines.format(21, 40)}")
    run = world.airflow.trigger("slurm_deferred", body=body)
    until(lambda: "line 20 of the log" in run.log(), what="the first half of the log has arrived")
    until(lambda: world.log_marks(run), what="the cluster was told how far the log was read")
    world.airflow.kill_all_of("triggerer")
    world.airflow.start("triggerer")
    job.go()
    world.row(7, "triggerer killed while deferred", run, job, expected="success")
    told = [line for line in run.log().splitlines() if line.endswith("of the log")]
    assert told == [f"line {n} of the log" for n in range(1, 41)]


def test_the_scheduler_is_killed_and_its_workers_live_on(world: World) -> None:
    """The next scheduler starts the synchronous task again while the first try is still at work."""
    started = {}
    for mode in MODES:
        job = world.job()
        started[mode] = (world.run_seen_running(f"slurm_{mode}_retried", job, job.script(job.wait)), job)
    run, _ = started["sync"]
    first = run.processes()
    world.airflow.kill("scheduler")
    world.airflow.start("scheduler")
    until(lambda: run.processes()["task"] != first["task"], what="a second try is at work")
    until(lambda: find_process(first["task"]) is None, what="the first try has been ended")
    for run, job in started.values():
        job.go()
        world.row(7, "scheduler killed and restarted", run, job, expected="success")


def test_the_machine_of_scheduler_and_workers_is_lost(world: World) -> None:
    job = world.job()
    run = world.run_seen_running("slurm_sync_retried", job, job.script(job.wait))
    first = run.processes()
    world.airflow.kill_all_of("scheduler")
    world.airflow.start("scheduler")
    until(lambda: run.processes()["task"] != first["task"], what="a second try is at work")
    job.go()
    world.row(7, "scheduler and workers killed", run, job, expected="success")
