"""The similarity kernel as a job on the stack's Slurm: stopped or killed, it goes on and gives the same bytes."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpc_jobs import neighbours, store
from strandloop.errors import JobFailed
from strandloop.hooks.slurm import SlurmHook
from strandloop.job_record import JobRecord
from strandloop.slurm_commands import cancel_by_name
from strandloop.slurm_submission import Submission
from strandloop.slurm_submitter import Submitter
from strandloop.slurm_waiting import look, settle
from strandloop.slurm_watch import SlurmWatch, WatchPlan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
SCRIPT = Path(__file__).parents[2] / "hpc_jobs" / "mpi_dna_seq.sbatch"
ROWS, DIM, NODES = 60_000, 64, 2


@pytest.fixture(scope="module")
def shared(stack: Mapping[str, str]) -> Path:
    """A folder of this test run on the file system that the nodes share, with an embedding store."""
    folder = Path(stack["STRANDLOOP_SHARED_DIR"]) / "tests" / uuid.uuid4().hex[:8]
    folder.mkdir(parents=True)
    vectors = np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32)
    ids = pa.array([f"r{row}" for row in range(ROWS)])
    store.write_store(folder / "store", ids, vectors, encoder_uri="e", encoder_revision="r")
    return folder


@pytest.fixture
def hook(stack: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmHook]:
    monkeypatch.setenv("AIRFLOW_CONN_SLURM", stack["AIRFLOW_CONN_SLURM"])
    with SlurmHook() as hook:
        yield hook


@pytest.fixture(scope="module")
def undisturbed(stack: Mapping[str, str], shared: Path) -> dict[str, bytes]:
    """The files of the result of a job that nobody disturbs."""
    with SlurmHook() as hook:
        job = KernelJob(hook, shared, stack)
        record = job.wait()
    assert record["state"] == "SUCCEEDED"
    return job.result()


class KernelJob:
    """One submitted job of the kernel, watched as the operator does it."""

    def __init__(self, hook: SlurmHook, shared: Path, stack: Mapping[str, str]) -> None:
        self.hook = hook
        self.name = str(uuid.uuid4())
        self.out, self.checkpoint = shared / self.name / "knn", shared / self.name / "checkpoint"
        self.out.parent.mkdir()
        submission = Submission(
            identity=self.name,
            job_root=str(shared / "jobs"),
            script=SCRIPT.read_text(),
            script_args=(
                *("--store", str(shared / "store"), "--out", str(self.out)),
                *("--checkpoint", str(self.checkpoint), "--checkpoint-seconds", "0"),
            ),
            environment={"STRANDLOOP_HOME": f"{stack['STRANDLOOP_SHARED_DIR']}/strandloop"},
            options=(f"--nodes={NODES}",),
        )
        self.record: JobRecord = Submitter(hook.run, print).ensure(submission)
        self.log: list[str] = []
        plan = WatchPlan(self.record.to_xcom(), reader="test", poll_interval_seconds=0.2)
        self._watch = SlurmWatch(plan, log=self.log.append)

    def wait(self) -> dict[str, Any]:
        """To the end; a requeued job starts in the next second, where Slurm would hold it for two minutes.

        In the same second a node takes the start for one that it was told to end, and the job fails.
        """
        outcome, hastened = None, False
        while (outcome := look(self.hook.run, self._watch)) is None:
            shown = slurm("scontrol", "show", "job", self.record.id)
            if not hastened and "JobState=PENDING" in shown and "Restarts=0" not in shown:
                slurm("scontrol", "update", f"JobId={self.record.id}", "StartTime=now+1")
                hastened = True
            time.sleep(self._watch.pause())
        return settle(self.hook.run, outcome)

    def has_saved(self) -> bool:
        """Whether a checkpoint is there, and the job is still at work."""
        assert not (self.out / "manifest.json").exists(), "it was over too soon"
        return (self.checkpoint / "checkpoint.json").exists()

    def result(self) -> dict[str, bytes]:
        """The files of its result, but for those that tell of a run's time."""
        names = {path.name for path in self.out.iterdir()} - {"metrics.json", "progress.json"}
        return {name: (self.out / name).read_bytes() for name in names}


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def until(condition: Callable[[], Any], seconds: float = 200.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "nothing came of it"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("disturbance", "saves"),
    [
        (("scancel", "--signal=USR1", "--batch"), True),
        (("scontrol", "requeue"), False),
    ],
    ids=["told to stop", "killed and requeued"],
)
def test_a_requeued_job_goes_on_and_ends_with_the_same_bytes(
    disturbance: tuple[str, ...],
    saves: bool,
    hook: SlurmHook,
    shared: Path,
    stack: Mapping[str, str],
    undisturbed: dict[str, bytes],
) -> None:
    job = KernelJob(hook, shared, stack)
    try:
        until(job.has_saved)
        slurm(*disturbance, job.record.id)
        ended = job.wait()
    finally:
        hook.run(cancel_by_name(job.name))
    assert ended["state"] == "SUCCEEDED"
    log = "\n".join(job.log)
    assert ("told to stop: saved in" in log) == saves
    assert log.count("goes on after unit") == 1
    assert "started again 1 times" in log
    assert "done: " in log
    assert job.result() == undisturbed
    assert not job.checkpoint.exists()
    assert neighbours.verify(job.out).rows == ROWS
    assert json.loads((Path(ended["job_dir"]) / "progress.json").read_text())["status"] == "done"
    assert json.loads((Path(ended["job_dir"]) / "exit.json").read_text())["restart_count"] == 1


def test_a_cancelled_job_does_not_come_back(hook: SlurmHook, shared: Path, stack: Mapping[str, str]) -> None:
    job = KernelJob(hook, shared, stack)
    until(job.has_saved)
    slurm("scancel", job.record.id)
    with pytest.raises(JobFailed, match="CANCELLED"):
        job.wait()
    assert slurm("squeue", "--noheader", f"--name={job.name}", "--states=PENDING,RUNNING") == ""
