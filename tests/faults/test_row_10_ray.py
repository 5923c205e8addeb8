"""Row 10: Ray."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.local.process_table import find_process
from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("world", ["Slurm"], indirect=True, scope="session"),  # once: no Slurm takes part
]
MODES = ("sync", "deferred")


@pytest.fixture(scope="module", autouse=True)
def ray(world: World) -> Iterator[None]:
    """Ray runs for this module only: two cores are few."""
    world.ray.up()
    yield
    world.ray.down()


def test_a_driver_that_exits_1_or_is_killed_or_cannot_be_set_up(world: World) -> None:
    started = []
    for mode in MODES:
        for fault, dag_id, body, jobs, says in (
            ("driver exits 1", "ray_{}", "echo no reads; exit 1", 1, "| no reads"),
            ("driver killed", "ray_{}", "kill -9 $$", 1, "exit code -9"),
            ("runtime_env cannot be set up", "ray_{}_environment", "", 0, "RUNTIME_ENV_SETUP_FAILURE"),
        ):
            job = world.job()
            conf = {"body": job.entrypoint(body), "working_dir": "gcs://_ray_pkg_0000000000000000.zip"}
            started.append((fault, world.airflow.trigger(dag_id.format(mode), **conf), job, jobs, says))
    for fault, run, job, jobs, says in started:
        world.row(10, fault, run, job, expected="failed", jobs=jobs, says=says)


def test_success_while_the_dashboard_misbehaves(world: World) -> None:
    """It answers 500 with a page of HTML, resets connections, and is slow; the jobs end meanwhile."""
    started = {}
    for mode in MODES:
        for ending, expected in (("exit 0", "success"), ("exit 3", "failed")):
            job = world.job()
            body = job.entrypoint(f"{job.wait}; [ '{ending}' = 'exit 0' ] || {ending}")
            started[mode, expected] = (world.airflow.trigger(f"ray_{mode}", body=body), job)
    for _, job in started.values():
        job.wait_until_started()
    with world.dashboard.answering("500 Internal Server Error", "<html>no upstream</html>"):
        for _, job in started.values():
            job.go()
        for run, _ in started.values():
            until(lambda run=run: not world.alive(run), what="the job has ended")
    with world.dashboard.slow(5.0):
        for (_, expected), (run, job) in started.items():
            colour = "green" if expected == "success" else "red"
            world.row(
                10, f"dashboard answers 500, then slowly; job ends {colour}", run, job, expected=expected
            )


def test_the_dashboard_answers_500_at_submission(world: World) -> None:
    started = []
    with world.dashboard.answering("500 Internal Server Error", "no"):
        for mode in MODES:
            job = world.job()
            started.append((world.airflow.trigger(f"ray_{mode}", body=job.entrypoint()), job))
        for run, _ in started:
            run.processes()
    for run, job in started:
        world.row(10, "dashboard answers 500 at submit", run, job, expected="success")


def test_a_submission_id_that_is_taken(world: World) -> None:
    """A worker is killed after its submission; the next try submits the same id again."""
    job = world.job()
    run = world.airflow.trigger("ray_sync_retried", body=job.entrypoint(job.wait))
    job.wait_until_started()
    run.kill_worker()
    run.processes(tries=2)
    job.go()
    world.row(10, "worker killed after submit: duplicate submission id", run, job, expected="success")


def test_a_person_stops_the_job_or_ends_the_task(world: World) -> None:
    started = {}
    for mode in MODES:
        for who in ("job", "task"):
            job = world.job()
            started[mode, who] = (world.airflow.trigger(f"ray_{mode}", body=job.entrypoint(job.wait)), job)
    for (mode, who), (run, job) in started.items():
        job.wait_until_started()
        run.wait_for("deferred" if mode == "deferred" else "running")
        if who == "job":
            world.ray.stop(run.run_id)
        else:
            run.mark("failed")
    for (_, who), (run, job) in started.items():
        until(lambda run=run: not world.alive(run), seconds=60, what="the job is gone")
        if who == "job":
            world.row(10, "stopped by a person", run, job, expected="failed", says="STOPPED")
        else:
            world.row(10, "marked failed while waiting", run, job, expected="failed")


def test_the_triggerer_is_killed_while_a_task_is_deferred(world: World) -> None:
    job = world.job()
    lines = 'for n in $(seq {} {}); do echo "line $n of the log"; done'
    body = f"{lines.format(1, 20)}\n{job.wait}\n{lines.format(21, 40)}"
    run = world.airflow.trigger("ray_deferred", body=job.entrypoint(body))
    until(lambda: "line 20 of the log" in run.log(), what="the first half of the log has arrived")
    read = world.ray.log_bytes(run.run_id)
    until(
        lambda: (run.xcom("ray_job_read") or {}).get("log_bytes") == read,
        what="Airflow was told how far the log was read",
    )
    world.airflow.kill_all_of("triggerer")
    world.airflow.start("triggerer")
    job.go()
    world.row(10, "triggerer killed while deferred", run, job, expected="success")
    told = [line for line in run.log().splitlines() if line.endswith("of the log")]
    assert told == [f"line {n} of the log" for n in range(1, 41)], run.log()


def test_the_scheduler_is_killed_and_its_workers_live_on(world: World) -> None:
    """The next scheduler starts the task again while the first try is still at work."""
    job = world.job()
    run = world.airflow.trigger("ray_sync_retried", body=job.entrypoint(job.wait))
    job.wait_until_started()
    first = run.processes()
    world.airflow.kill("scheduler")
    world.airflow.start("scheduler")
    until(lambda: run.processes()["task"] != first["task"], what="a second try is at work")
    until(lambda: find_process(first["task"]) is None, what="the first try has been ended")
    job.go()
    world.row(10, "scheduler killed and restarted", run, job, expected="success")


def test_a_worker_node_is_killed(world: World) -> None:
    """Ray runs the lost task again on the node that is left; the job is one and ends green."""
    job = world.job()
    run = world.airflow.trigger("ray_deferred", body=world.ray.work_on_the_worker_node(job.folder))
    job.wait_until_started()
    with world.ray.worker_lost():
        job.go()
        world.row(10, "worker node killed", run, job, expected="success", jobs=2)


def test_the_head_is_restarted(world: World) -> None:
    """The job is lost: red without retries, and with them the next attempt does the work."""
    lost, again = world.job(), world.job()
    first_time_waits = f'[ "$(wc -l < {again.folder}/starts)" -gt 1 ] || {{ {again.wait}; }}'
    lost_run = world.airflow.trigger("ray_deferred", body=lost.entrypoint(lost.wait))
    again_run = world.airflow.trigger("ray_deferred_retried", body=again.entrypoint(first_time_waits))
    for job in (lost, again):
        job.wait_until_started()
    world.ray.restart_head()
    world.row(
        10, "head restarted, job lost, no retries", lost_run, lost, expected="failed", says="does not know it"
    )
    world.row(10, "head restarted, job lost, retried", again_run, again, expected="success", jobs=2)
