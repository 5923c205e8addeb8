"""Row 1: every way in which a job ends by itself, or does not begin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from tests.faults.airflow_services import Run
from tests.faults.conditions import until
from tests.faults.world import CountedJob, World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Ending:
    """How a job ends: its body, what the run asks for, and what the task must say."""

    fault: str
    body: Callable[[CountedJob], str]
    says: str
    expected: str = "failed"
    jobs: int = 1
    conf: Mapping[str, str] | None = None
    dag: str = "slurm_{mode}"


ENDINGS = {
    "success": Ending("success", lambda job: "", "its script ended with 0", expected="success"),
    "exit_1": Ending("exit 1", lambda job: "echo no reads >&2; exit 1", "| no reads"),
    "sensor_success": Ending(
        "success",
        lambda job: "sleep 1",
        "its script ended with 0",
        expected="success",
        dag="slurm_{mode}_sensor",
    ),
    "sensor_exit_1": Ending(
        "exit 1", lambda job: "sleep 1; exit 1", "exit code 1", dag="slurm_{mode}_sensor"
    ),
    "signal": Ending("exit by signal", lambda job: "kill -9 $$", "was ended by signal 9"),
    "memory": Ending(
        "out of memory",
        lambda job: "python3 -c 'import time; held = bytearray(600_000_000); time.sleep(60)'",
        "OUT_OF_MEMORY",
        conf={"mem": "200M"},
    ),
    "no_partition": Ending(
        "sbatch refuses: bad partition",
        lambda job: "",
        "invalid partition",
        jobs=0,
        conf={"partition": "nowhere"},
    ),
    "no_script": Ending(
        "sbatch refuses: script missing",
        lambda job: "",
        "cannot be read",
        jobs=0,
        conf={"script": "/nonexistent/job.sbatch"},
        dag="slurm_{mode}_script",
    ),
    "person": Ending("scancel by a person", lambda job: job.wait, "CANCELLED"),
    "own_limit": Ending(
        "the task's own limit for running",
        lambda job: job.wait,
        "the limit of this task is 5 s; it was cancelled",
        dag="slurm_{mode}_limits",
    ),
    "queue_limit": Ending(
        "the task's own limit for waiting in the queue",
        lambda job: "",
        "waited in the queue",
        jobs=0,
        conf={"partition": "closed"},
        dag="slurm_{mode}_limits",
    ),
    "time": Ending("time limit of Slurm", lambda job: job.wait, "TIMEOUT", conf={"time": "1"}),
}
MODES = ("sync", "deferred")

Started = dict[tuple[str, str], tuple[Run, CountedJob]]


@pytest.fixture(scope="module")
def started(world: World) -> Started:
    """All of them at once, each awaited in both ways, and a person who cancels the one that waits."""
    runs: Started = {}
    # The one that takes longest first.
    for name, ending in reversed(ENDINGS.items()):
        for mode in MODES:
            job = world.job()
            script = job.script(ending.body(job))
            run = world.airflow.trigger(
                ending.dag.format(mode=mode), **{"body": script, **(ending.conf or {})}
            )
            runs[name, mode] = (run, job)
    return runs


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ENDINGS)
def test_ending(world: World, started: Started, name: str, mode: str) -> None:
    run, job = started[name, mode]
    ending = ENDINGS[name]
    if name == "person":
        number = job.wait_until_started()
        # Once the task waits for it: cancelled earlier, it would be a job that never began.
        until(lambda: "RUNNING" in run.log(), what="the task has seen its job running")
        world.slurm.run("scancel", number)
    # Without control groups Slurm looks at memory now and then, kills, and calls it a failed launch.
    says = ending.says if name != "memory" or world.slurm.sees_memory_kills else "FAILED"
    world.row(1, ending.fault, run, job, expected=ending.expected, jobs=ending.jobs, says=says)
