"""Row 8: a person ends, clears or repeats a task."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.airflow_services import Run
from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
MODES = ("sync", "deferred")
DAY = "2026-03-0{}T00:00:00Z"


def test_a_person_ends_the_task(world: World) -> None:
    started = []
    for mode in MODES:
        for state in ("failed", "success"):
            job = world.job()
            run = world.airflow.trigger(f"slurm_{mode}", body=job.script(job.wait))
            started.append((state, run, job))
    for state, run, job in started:
        world.until_seen_running((run, job))
        run.wait_for("deferred", "running")
        run.mark(state)
    for state, run, job in started:
        until(lambda run=run: not world.alive(run), seconds=60, what="the job is gone")
        # A task that a person declares a success is one, with or without a result.
        world.row(8, f"marked {state} while waiting", run, job, expected=state, result=False)


def test_a_person_clears_the_task(world: World) -> None:
    """While it waits, the old job ends and a new one starts: never both. After its end, a new one starts."""
    waiting = []
    for mode in MODES:
        job = world.job()
        waiting.append((world.airflow.trigger(f"slurm_{mode}", body=job.script(job.wait)), job))
    green, red = world.job(), world.job()
    first_time_fails = f'[ "$(wc -l < {red.folder}/starts)" -gt 1 ] || exit 1'
    green_run = world.airflow.trigger("slurm_deferred", body=green.script())
    red_run = world.airflow.trigger("slurm_deferred", body=red.script(first_time_fails))
    world.until_seen_running(*waiting)
    for run, _ in waiting:
        run.wait_for("deferred", "running")
        run.clear()
    assert (green_run.end(), red_run.end()) == ("success", "failed")
    for run in (green_run, red_run):
        run.clear()
    for run, job in waiting:
        first, second = job.starts[0], job.wait_until_started(times=2)
        assert second != first and world.alive(run) == 1
        job.go()
        world.row(8, "cleared while waiting", run, job, expected="success", jobs=2)
    for run, job, ended in ((green_run, green, "success"), (red_run, red, "failure")):
        until(
            lambda job=job: len(job.starts) >= 2,
            seconds=240,
            what=lambda run=run: f"{run.run_id} has started a job again: {run.instance()}\n{run.log()}",
        )
        world.row(8, f"cleared after {ended}", run, job, expected="success", jobs=2)


def test_a_backfill_of_the_same_date_twice(world: World) -> None:
    """The second one finds the date done and starts nothing; told to reprocess it, it starts one new job."""
    job = world.job()
    listed = {"params": {"dag_id": "slurm_daily"}}
    day = DAY.format(1 + world.airflow.ask("GET", "/backfills", **listed)["total_entries"])

    def backfills() -> list[dict[str, Any]]:
        return world.airflow.ask("GET", "/backfills", **listed)["backfills"]

    def backfill(reprocess: str) -> None:
        body = {
            "dag_id": "slurm_daily",
            "from_date": day,
            "to_date": day,
            "dag_run_conf": {"body": job.script()},
            "reprocess_behavior": reprocess,
        }
        world.airflow.ask("POST", "/backfills", json=body)
        until(lambda: all(each["completed_at"] for each in backfills()), what="the backfill is done")

    backfill("none")
    (found,) = world.airflow.ask(
        "GET", "/dags/slurm_daily/dagRuns", params={"logical_date_gte": day, "logical_date_lte": day}
    )["dag_runs"]
    run = Run(world.airflow, "slurm_daily", found["dag_run_id"])
    assert run.end() == "success", run.log()
    backfill("none")
    world.row(8, "backfill of the same date twice", run, job, expected="success")
    backfill("completed")
    job.wait_until_started(times=2)
    world.row(8, "backfill of the same date, reprocessed", run, job, expected="success", jobs=2)
