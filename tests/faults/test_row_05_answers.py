"""Row 5: Slurm's commands and the shared file system answer wrongly, late, or not at all."""

from __future__ import annotations

import pytest

from tests.faults.world import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
MODES = ("sync", "deferred")
NOT_KNOWN = "slurm_load_jobs error: Invalid job id specified"


def test_squeue_answers_empty_once_after_a_worker_was_killed(world: World) -> None:
    """The submitter stopped before it could note the job; its successor must not believe the first look."""
    started = []
    for mode in MODES:
        job = world.job()
        run = world.airflow.trigger(f"slurm_{mode}_retried", body=job.script())
        started.append((run, job, world.login.holds_after("sbatch", match=world.identities(run)[0])))
    empty = []
    for run, _, sbatch in started:
        sbatch.wait_until_arrived()
        empty.append(world.login.answers("squeue", "", match=world.identities(run)[0]))
        run.kill_worker()
        sbatch.open()
    for fault in empty:
        fault.wait_until_used()
    for run, job, _ in started:
        world.row(5, "squeue answers empty once", run, job, expected="success")


def test_commands_that_time_out_print_garbage_or_forget(world: World) -> None:
    """While a job runs; scontrol is what a poll asks first, squeue and sacct are its witnesses."""
    faults = {
        "scontrol times out": lambda number: [
            world.login.holds_before("scontrol", match=f"oneliner {number}")
        ],
        "scontrol prints garbage": lambda number: [
            world.login.answers(
                "scontrol", "JobId=\x01 JobState=COMPLETED \ufffd", match=f"oneliner {number}", times=2
            )
        ],
        "scontrol, squeue and sacct know nothing once": lambda number: [
            world.login.answers("scontrol", NOT_KNOWN, match=f"oneliner {number}", rc=1),
            world.login.answers("squeue", "", match=f"--jobs {number}"),
            world.login.answers("sacct", "", match=f"--jobs {number}"),
        ],
    }
    started = {}
    for fault in faults:
        for mode in MODES:
            job = world.job()
            started[fault, mode] = (world.airflow.trigger(f"slurm_{mode}", body=job.script(job.wait)), job)
    applied = []
    for (fault, _), (run, job) in started.items():
        world.until_seen_running((run, job))
        applied += faults[fault](job.starts[0])
    for fault in applied:
        fault.wait_until_used()
    for (fault, _), (run, job) in started.items():
        job.go()
        world.row(5, fault, run, job, expected="success")


def test_the_shared_file_system_answers_late(world: World) -> None:
    """The job's exit file is not to be seen for some polls after the job has ended."""
    started = {}
    for mode in MODES:
        for ending, expected in (("exit 0", "success"), ("exit 3", "failed")):
            job = world.job()
            body = job.script(f"{job.wait}\n[ '{ending}' = 'exit 0' ] || {ending}")
            run = world.airflow.trigger(f"slurm_{mode}", body=body)
            started[mode, expected] = (run, job)
    for run, job in started.values():
        world.until_seen_running((run, job))
        job_dir = world.job_dir(run)
        world.login.hides(job_dir / "exit.json", match=f"strandloop {job_dir} ", times=4)
        job.go()
    for (_, expected), (run, job) in started.items():
        colour = "green" if expected == "success" else "red"
        world.row(5, f"the shared file system answers late, {colour}", run, job, expected=expected)
