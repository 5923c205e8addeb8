"""A login node with a toy of a Slurm behind it, a few lines of shell: our commands run there for real."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from strandloop.hooks.slurm import Completed
from strandloop.job_record import JobRecord
from strandloop.slurm_commands import Command
from strandloop.slurm_state import Resolution
from strandloop.slurm_submission import Remembered, Submission
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
    of=" ArrayJobId=$4 ArrayTaskId="
    array=$(sed -n "s/.*--array=\\(\\S*\\).*/$of\\1/p" "$FAKE_SLURM/$4.options" 2>/dev/null)
    echo "JobId=$4$array JobName=$job JobState=$state Reason=$why Restarts=0 ExitCode=0:0 NumNodes=1" ;;
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

    def ensure(
        self,
        patience: float = 0.0,
        *,
        durable: bool = True,
        remembered: Remembered | None = None,
        **changes: object,
    ) -> JobRecord:
        submitter = Submitter(self.run, self.said.append, patience=patience, look_interval=0.01)
        return submitter.ensure(self.submission(**changes), durable=durable, remembered=remembered)

    def end(self, record: JobRecord, resolution: Resolution | None = None) -> None:
        """Let the controller forget a job; with a resolution, as somebody saw it end."""
        (self.root / "jobs" / record.id).write_text(f"{NAME}|GONE|None\n")
        if resolution is not None:
            Path(str(record.job_dir), "verdict.json").write_text(resolution.to_verdict(record.id))

    def report(self, record: JobRecord, code: int = 0, *, index: int | None = None) -> None:
        """Let a job, or an element of an array, leave its exit file."""
        times = {"started_at": "2026-11-21T10:04:09Z", "ended_at": "2026-11-21T10:05:00Z"}
        value = {"job_id": record.id, "index": index, "exit_code": code, "signal": None, "told": ""}
        value |= {"hosts": "n1", "nodes": 1, "restart_count": 0, **times}
        name = "exit.json" if index is None else f"exit.{index}.json"
        Path(str(record.job_dir), name).write_text(json.dumps(value) + "\n")

    def states(self) -> list[str]:
        return [path.read_text().split("|")[1] for path in sorted((self.root / "jobs").iterdir())]
