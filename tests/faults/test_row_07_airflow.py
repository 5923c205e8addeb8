"""Row 7: parts of Airflow are killed."""

from __future__ import annotations

import pytest

from infra.local.process_table import find_process
from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
MODES = ("sync", "deferred")


@pytest.mark.parametrize("mode", MODES)
def test_the_worker_is_killed_before_it_submits(world: World, mode: str) -> None:
    job = world.job()
    look = world.login.holds_before("squeue")
    run = world.airflow.trigger(f"slurm_{mode}_retried", body=job.script())
    look.wait_until_arrived()
    run.kill_worker()
    look.open()
    world.row(7, "worker killed before submit", run, job, expected="success")


@pytest.mark.parametrize("mode", MODES)
def test_the_worker_is_killed_between_submit_and_store(world: World, mode: str) -> None:
    job = world.job()
    sbatch = world.login.holds_after("sbatch")
    run = world.airflow.trigger(f"slurm_{mode}_retried", body=job.script())
    sbatch.wait_until_arrived()
    run.kill_worker()
    sbatch.open()
    world.row(7, "worker killed between submit and store", run, job, expected="success")


def test_the_worker_is_killed_while_it_polls(world: World) -> None:
    job = world.job()
    run = world.airflow.trigger("slurm_sync_retried", body=job.script(job.wait))
    job.wait_until_started()
    until(lambda: "RUNNING" in run.log(), what="the task has seen its job running")
    run.kill_worker()
    run.processes(tries=2)
    until(lambda: "attaching to job" in run.log(), what="the next try has found the job")
    job.go()
    world.row(7, "worker killed while polling synchronously", run, job, expected="success")


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


@pytest.mark.parametrize("mode", MODES)
def test_the_scheduler_is_killed_and_its_workers_live_on(world: World, mode: str) -> None:
    """The next scheduler starts the synchronous task again while the first try is still at work."""
    job = world.job()
    run = world.airflow.trigger(f"slurm_{mode}_retried", body=job.script(job.wait))
    job.wait_until_started()
    until(lambda: "RUNNING" in run.log(), what="the task has seen its job running")
    world.airflow.kill("scheduler")
    world.airflow.start("scheduler")
    if mode == "sync":
        first = run.processes()
        until(lambda: run.processes()["task"] != first["task"], seconds=120, what="a second try is at work")
        until(lambda: find_process(first["task"]) is None, seconds=120, what="the first try has been ended")
    else:
        until(world.airflow.healthy, what="the next scheduler is at work")
    job.go()
    world.row(7, "scheduler killed and restarted", run, job, expected="success")


def test_the_machine_of_scheduler_and_workers_is_lost(world: World) -> None:
    job = world.job()
    run = world.airflow.trigger("slurm_sync_retried", body=job.script(job.wait))
    job.wait_until_started()
    until(lambda: "RUNNING" in run.log(), what="the task has seen its job running")
    world.airflow.kill_all_of("scheduler")
    world.airflow.start("scheduler")
    first = run.processes()
    until(lambda: run.processes()["task"] != first["task"], seconds=120, what="a second try is at work")
    job.go()
    world.row(7, "scheduler and workers killed", run, job, expected="success")
