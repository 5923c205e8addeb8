"""Submitting at most once. The commands run for real, in front of a Slurm that is a few lines of shell."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from strandloop.errors import ConnectionBroken, InvalidJob, StateUnknown, SubmitRefused
from strandloop.hooks.slurm import Completed
from strandloop.job_record import JobRecord
from strandloop.slurm_commands import Command
from strandloop.slurm_state import JobState, Resolution
from strandloop.slurm_submission import Submission
from strandloop.slurm_submitter import Submitter

# One file per job, "<name>|<state>|<reason>"; a job that is over is one that the controller forgot.
PROLOGUE = """#!/bin/bash
jobs=$FAKE_SLURM/jobs
[ -e "$FAKE_SLURM/down" ] && { echo "error: Unable to contact slurm controller (connect failure)" >&2; exit 1; }
for argument in "$@"; do case $argument in --name=*) name=${argument#--name=};; esac; done
"""
PROGRAMS = {
    "sbatch": """
[ -e "$FAKE_SLURM/refuse" ] && { echo "sbatch: error: Invalid partition name specified" >&2; exit 1; }
for argument in "$@"; do case $argument in --job-name=*) name=${argument#--job-name=};; esac; done
id=$(($(ls "$jobs" | wc -l) + 1)); cat > "$FAKE_SLURM/$id.sbatch"; echo "$@" > "$FAKE_SLURM/$id.options"
echo "$name|PENDING|JobHeldUser" > "$jobs/$id"; echo "$id"
""",
    "squeue": """
[ "$2" = --name ] && for id in $(ls "$jobs"); do
    IFS='|' read -r job state why < "$jobs/$id"
    [ "$job" = "$3" ] && [ "$state" != GONE ] && echo "$id|$state|$why"
done
exit 0
""",
    "scontrol": """
case $1 in
release) sed -i 's/|.*/|RUNNING|None/' "$jobs/$2" ;;
show) if [ "$2" = config ]; then printf 'BOOT_TIME = 2026-11-21T10:03:42\\nClusterName = toy\\n'; exit; fi
    [ -e "$jobs/$4" ] && IFS='|' read -r job state why < "$jobs/$4"
    if [ "${state:-GONE}" = GONE ]; then echo "slurm_load_jobs error: Invalid job id specified"; exit 1; fi
    echo "JobId=$4 JobName=$job JobState=$state Reason=$why Restarts=0 ExitCode=0:0 NumNodes=1" ;;
esac
""",
    "scancel": """
for id in $(ls "$jobs"); do
    if [ "$1" = "$id" ] || { [ -n "$name" ] && grep -q "^$name|" "$jobs/$id"; }; then
        sed -i 's/|.*/|GONE|None/' "$jobs/$id"
    fi
done
""",
    "sacct": 'echo "Slurm accounting storage is disabled"; exit 1',
}
NAME = "c68145c3-3aba-4e10-971b-e4b6047cb1cf"


@dataclass
class Cluster:
    """A login node, and a toy of a Slurm behind it.

    :param breaks: called before and after each command with the command's words; may raise.
    """

    root: Path
    breaks: Callable[[str, str], None] = lambda when, words: None
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in ("bin", "jobs", "fsx"):
            (self.root / folder).mkdir()
        for program, text in PROGRAMS.items():
            path = self.root / "bin" / program
            path.write_text(PROLOGUE + text)
            path.chmod(0o755)

    def run(self, command: Command) -> Completed:
        words = " ".join(command.args[3:])
        self.breaks("before", words)
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            command.args,
            input=command.stdin,
            capture_output=True,
            env={"PATH": path, "FAKE_SLURM": str(self.root)},
        )
        self.breaks("after", words)
        return Completed(done.returncode, done.stdout, done.stderr)

    def submission(self, **changes: object) -> Submission:
        fields = {"identity": NAME, "job_root": str(self.root / "fsx"), "script": "echo hello\n", **changes}
        return Submission(**fields)  # type: ignore[arg-type]

    def ensure(self, patience: float = 0.0) -> JobRecord:
        submitter = Submitter(self.run, self.said.append, patience=patience, look_interval=0.01)
        return submitter.ensure(self.submission())

    def end(self, record: JobRecord, resolution: Resolution | None = None) -> None:
        """Let the controller forget a job; with a resolution, as somebody saw it end."""
        (self.root / "jobs" / record.id).write_text(f"{NAME}|GONE|None\n")
        if resolution is not None:
            Path(str(record.job_dir), "verdict.json").write_text(resolution.to_verdict(record.id))

    def states(self) -> list[str]:
        return [path.read_text().split("|")[1] for path in sorted((self.root / "jobs").iterdir())]


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def broken(when: str, words: str) -> Callable[[str, str], None]:
    """Break the connection once, before or after the first command with these words."""
    left = [1]

    def breaks(now: str, command: str) -> None:
        if left and now == when and words in command:
            left.clear()
            raise ConnectionBroken("cut")

    return breaks


def test_submits_held_looks_and_releases(cluster: Cluster) -> None:
    record = cluster.ensure()
    assert (record.id, record.name, record.attempt, record.state) == ("1", NAME, 1, "PENDING")
    assert record.cluster == "toy@2026-11-21T10:03:42"
    assert cluster.states() == ["RUNNING"]
    assert Path(str(record.job_dir), "script.sbatch").read_text() == "echo hello\n"
    assert f"--parsable --hold --job-name={NAME}" in (cluster.root / "1.options").read_text()
    assert json.loads(Path(str(record.job_dir), "submitted.json").read_text())["job_id"] == "1"


def test_attaches_to_a_job_that_lives(cluster: Cluster) -> None:
    assert cluster.ensure() == cluster.ensure()
    assert cluster.states() == ["RUNNING"]


def test_takes_a_job_that_succeeded(cluster: Cluster) -> None:
    first = cluster.ensure()
    times = {"started_at": "2026-11-21T10:04:09Z", "ended_at": "2026-11-21T10:05:00Z"}
    report = {"job_id": first.id, "exit_code": 0, "told": "", "hosts": "n1", "nodes": 1, "restart_count": 0}
    Path(str(first.job_dir), "exit.json").write_text(json.dumps({**report, **times}))
    cluster.end(first)
    (cluster.root / "down").touch()
    taken = cluster.ensure()
    assert (taken.id, taken.state, taken.nodes, taken.ended_at) == ("1", "SUCCEEDED", 1, times["ended_at"])


def test_submits_the_next_attempt_of_a_job_that_failed(cluster: Cluster) -> None:
    first = cluster.ensure()
    cluster.end(first, Resolution(JobState.NODE_FAILED, "scontrol says NODE_FAIL"))
    second = cluster.ensure()
    assert (second.id, second.attempt) == ("2", 2)
    assert second.job_dir != first.job_dir


def test_submits_nothing_beside_a_job_of_which_nobody_knows(cluster: Cluster) -> None:
    cluster.end(cluster.ensure())
    with pytest.raises(StateUnknown, match="Invalid job id specified"):
        cluster.ensure()
    assert cluster.states() == ["GONE"]


def test_a_connection_cut_after_sbatch_ran_leaves_one_job(cluster: Cluster) -> None:
    cluster.breaks = broken("after", "sbatch --")
    record = cluster.ensure(patience=5)
    assert record.id == "1" and cluster.states() == ["RUNNING"]


def test_a_worker_that_died_after_sbatch_leaves_a_held_job_that_is_found(cluster: Cluster) -> None:
    cluster.breaks = broken("after", "sbatch --")
    with pytest.raises(ConnectionBroken):
        cluster.ensure(patience=-1)
    assert cluster.states() == ["PENDING"]
    assert cluster.ensure().id == "1" and cluster.states() == ["RUNNING"]


def test_a_worker_that_died_before_sbatch_is_succeeded_after_several_looks(cluster: Cluster) -> None:
    cluster.breaks = broken("before", "sbatch --")
    with pytest.raises(ConnectionBroken):
        cluster.ensure(patience=-1)
    record = cluster.ensure(patience=5)
    assert (record.id, record.attempt) == ("1", 1)
    assert sum("no job of it is known" in said for said in cluster.said) >= 2


def test_of_two_submitted_at_once_the_later_goes(cluster: Cluster) -> None:
    def other_worker(when: str, words: str) -> None:
        if when == "before" and "sbatch --" in words:
            cluster.breaks = lambda when, words: None
            (cluster.root / "jobs" / "1").write_text(f"{NAME}|PENDING|JobHeldUser\n")

    cluster.breaks = other_worker
    record = cluster.ensure()
    assert record.id == "1" and cluster.states() == ["RUNNING", "GONE"]


def test_a_forgotten_held_twin_is_cancelled(cluster: Cluster) -> None:
    cluster.ensure()
    (cluster.root / "jobs" / "2").write_text(f"{NAME}|PENDING|JobHeldUser\n")
    assert cluster.ensure().id == "1" and cluster.states() == ["RUNNING", "GONE"]


def test_a_job_that_a_person_holds_stays_held(cluster: Cluster) -> None:
    cluster.ensure()
    (cluster.root / "jobs" / "1").write_text(f"{NAME}|PENDING|JobHeldUser\n")
    assert cluster.ensure().id == "1" and cluster.states() == ["PENDING"]


def test_a_refusal_is_told_in_sbatch_s_words(cluster: Cluster) -> None:
    (cluster.root / "refuse").touch()
    with pytest.raises(SubmitRefused, match="Invalid partition name specified"):
        cluster.ensure()


def test_a_controller_that_is_down_is_waited_for(cluster: Cluster) -> None:
    (cluster.root / "down").touch()
    with pytest.raises(ConnectionBroken, match="Unable to contact"):
        cluster.ensure()
    assert cluster.states() == []


@pytest.mark.parametrize("job_root", ["fsx/jobs", "/fsx/%u/jobs"])
def test_a_job_root_that_slurm_would_read_otherwise_is_refused(cluster: Cluster, job_root: str) -> None:
    with pytest.raises(InvalidJob, match="job_root"):
        cluster.submission(job_root=job_root)
