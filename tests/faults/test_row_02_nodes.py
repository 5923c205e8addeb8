"""Row 2: a node is lost in the middle of a job."""

from __future__ import annotations

import pytest

from tests.faults.conditions import until
from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
MODES = ("sync", "deferred")


def test_a_lost_node(world: World) -> None:
    """Both nodes fail: Slurm starts the jobs that may be requeued again, and gives the others up."""
    started = {}
    for mode in MODES:
        for requeue, node in (("--requeue", "n1"), ("--no-requeue", "n2")):
            job = world.job()
            first_time = f'if [ "${{SLURM_RESTART_COUNT:-0}}" = 0 ]; then {job.wait}; fi'
            directives = f"#SBATCH {requeue}\n#SBATCH --nodelist={node}"
            script = job.script(first_time, directives=directives)
            started[mode, requeue] = (world.airflow.trigger(f"slurm_{mode}", body=script), job)
    world.until_seen_running(*started.values())
    numbers = {key: job.starts[0] for key, (_, job) in started.items()}
    with world.slurm.nodes_lost():
        for run, _ in (started[mode, "--no-requeue"] for mode in MODES):
            run.wait_for("failed")
    for mode in MODES:
        # Slurm keeps a requeued job for two minutes. Not in the second in which its node started: what came of that
        # was seen to be lost, and the job to be running for the controller long after its end.
        number = numbers[mode, "--requeue"]
        until(
            lambda number=number: "JobState=PENDING" in world.slurm.run("scontrol", "show", "job", number),
            what="the job is in the queue again",
        )
        world.slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now+1")
    for mode in MODES:
        run, job = started[mode, "--requeue"]
        fault = "slurmd killed mid-job, requeued"
        world.row(2, fault, run, job, expected="success", jobs=2, says="started again 1 time")
        assert len(set(job.starts)) == 1
        run, job = started[mode, "--no-requeue"]
        world.row(2, "slurmd killed mid-job, --no-requeue", run, job, expected="failed", says="NODE_FAILED")
