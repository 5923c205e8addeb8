"""Seconds from the end of a Slurm job to the end of its Airflow task: ``make bench-task-end``.

Jobs of deferred tasks at the default poll interval, under a real scheduler and triggerer; a job's end is what
its exit file tells, its task's end what Airflow tells. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from tests.faults.world import World, running_world

ROOT = Path(__file__).parents[2]
#: All tasks are deferred by then, even where two cores start them one after another.
SHORTEST_JOB_SECONDS = 90


def seconds_to_the_tasks_end(world: World, *, tasks: int) -> list[float]:
    """Run so many tasks side by side, their jobs ending a second apart."""
    started = []
    for number in range(tasks):
        job = world.job()
        body = job.script(f"sleep {SHORTEST_JOB_SECONDS + number}")
        started.append(world.airflow.trigger("slurm_at_default_pace", body=body))
    seconds = []
    for run in started:
        assert run.end(seconds=SHORTEST_JOB_SECONDS + tasks + 240) == "success", run.log()
        ended = json.loads((world.job_dir(run) / "exit.json").read_text())["ended_at"]
        task_ended = run.instance()["end_date"]
        seconds.append((datetime.fromisoformat(task_ended) - datetime.fromisoformat(ended)).total_seconds())
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--json", type=Path, default=ROOT / ".local" / "bench" / "task_end.json")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="task-end-") as state,
        running_world(Path(state), "Slurm") as world,
    ):
        seconds = sorted(seconds_to_the_tasks_end(world, tasks=options.tasks))
    found = {
        "tasks": options.tasks,
        "poll_interval_seconds": 15,
        "seconds": [round(each, 1) for each in seconds],
        "median_seconds": round(statistics.median(seconds), 1),
        "worst_seconds": round(seconds[-1], 1),
        "machine": {"cpus": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "airflow": version("apache-airflow")},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    print("| tasks | median | worst |\n|---|---|---|")
    print(f"| {options.tasks} | {found['median_seconds']} s | {found['worst_seconds']} s |")


if __name__ == "__main__":
    main()
