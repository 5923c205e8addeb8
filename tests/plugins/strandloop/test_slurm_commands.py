"""The shell scripts of the login node, run for real; Slurm's commands are a few lines of shell."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from strandloop.slurm_answers import Poll, parse_poll
from strandloop.slurm_commands import Command, conclude, poll, poll_array, write_file

NAME = "c68145c3-3aba-4e10-971b-e4b6047cb1cf"
KNOWN = f"echo 'JobId=7 JobName={NAME} JobState=RUNNING Restarts=0 NumNodes=1 NumCPUs=1 Comment=JobState=COMPLETED'"
UNKNOWN = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


@dataclass(frozen=True)
class LoginNode:
    """A job's directory, and commands that say what a test wants."""

    root: Path

    @property
    def job_dir(self) -> Path:
        return self.root / "my jobs" / "1"

    def command(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.root}/asked\n{body}\n')
        path.chmod(0o755)

    @property
    def asked(self) -> list[str]:
        return [line.split()[0] for line in (self.root / "asked").read_text().splitlines()]

    def run(self, command: Command) -> bytes:
        env = {"PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(
            command.args, input=command.stdin, env=env, capture_output=True, timeout=60
        ).stdout

    def poll(self, offset: int | None = None, **words: bool) -> Poll:
        question = poll(str(self.job_dir), job_id="7", reader="r", offset=offset, limit=100, **words)
        return parse_poll(self.run(question), job_id="7", name=NAME)

    def poll_array(self, verdicts: str = "") -> Poll:
        question = poll_array(str(self.job_dir), job_id="7", reader="r", verdicts=verdicts)
        return parse_poll(self.run(question), job_id="7", name=NAME)


def lines(text: str | None) -> list[str]:
    return [line for line in (text or "").splitlines() if line]


@pytest.fixture
def node(tmp_path: Path) -> LoginNode:
    node = LoginNode(tmp_path)
    node.job_dir.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    node.command("scontrol", f'[ "$2" = job ] || {{ echo "ClusterName = toy"; exit; }}\n{KNOWN}')
    node.command("squeue", f"echo '7|N/A|{NAME}|RUNNING|None|1|n1'")
    node.command("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return node


def test_a_poll_brings_all_evidence_and_the_next_piece_of_the_log(node: LoginNode) -> None:
    (node.job_dir / "exit.json").write_text('{"job_id": "7"}\n')
    (node.job_dir / "verdict.json").write_text('{"job_id": "8"}\n')
    (node.job_dir / "progress.json").write_text('{"percent":\n 5}')
    (node.job_dir / "job.log").write_bytes(b"one\n\n@end 0\n\xff\x00tw")
    seen = node.poll()
    assert (seen.offset, seen.log, seen.files_read) == (0, b"one\n\n@end 0\n\xff\x00tw", True)
    assert lines(seen.evidence.exit_file) == ['{"job_id": "7"}']
    assert lines(seen.evidence.verdict) == ['{"job_id": "8"}']
    assert seen.progress.strip() == '{"percent":  5}' and seen.cluster is None
    assert seen.evidence.scontrol is not None and "Comment" not in seen.evidence.scontrol.text
    assert node.asked == ["scontrol"]


def test_witnesses_are_asked_where_the_controller_does_not_know_or_there_is_doubt(node: LoginNode) -> None:
    seen = node.poll(doubt=True, cluster=True)
    assert seen.evidence.squeue is not None and seen.evidence.sacct is not None
    assert seen.cluster == "toy@?" and node.asked == ["scontrol", "squeue", "sacct", "scontrol"]
    node.command("scontrol", UNKNOWN)
    seen = node.poll()
    assert seen.evidence.forgotten and seen.evidence.squeue is not None
    assert seen.evidence.sacct is not None and seen.evidence.sacct.rc == 1


def test_the_place_in_the_log_outlives_the_reader(node: LoginNode) -> None:
    log = node.job_dir / "job.log"
    log.write_text("one\ntwo\n")
    node.poll(4)
    assert (node.poll().offset, node.poll().log) == (4, b"two\n")


def test_a_log_that_was_cut_is_read_from_its_start(node: LoginNode) -> None:
    log = node.job_dir / "job.log"
    log.write_text("one\ntwo\n")
    assert node.poll(8).offset == 8
    log.write_text("new\n")
    assert (node.poll(8).offset, node.poll(8).log) == (0, b"new\n")


def test_a_progress_file_cannot_pass_for_anything_else(node: LoginNode) -> None:
    (node.job_dir / "progress.json").write_text(
        f"@log 99\n@scontrol 0\nJobId=7 JobName={NAME}\n@log 7" + "x" * 9000
    )
    seen = node.poll()
    assert seen.offset == 0 and len(seen.progress) <= 4097
    assert seen.evidence.scontrol is not None and "RUNNING" in seen.evidence.scontrol.text


def test_files_that_hang_do_not_silence_slurm(node: LoginNode) -> None:
    node.command(
        "timeout",
        'if [ "$1" = -s ]; then shift 3; exec /usr/bin/timeout -s KILL 0.3 "$@"; fi; shift; exec "$@"',
    )
    (node.job_dir / "exit.json").write_text("{}")
    node.command("cat", "exec sleep 30")
    seen = node.poll()
    assert not seen.files_read
    assert seen.evidence.scontrol is not None and seen.evidence.scontrol.rc == 0


def test_a_poll_of_an_array_brings_every_exit_file_and_keeps_verdicts(node: LoginNode) -> None:
    for index in (0, 11):
        (node.job_dir / f"exit.{index}.json").write_text(f'{{"index": {index}}}\n')
    (node.job_dir / "exit.before-restart-1.3.json").write_text('{"index": 3}\n')
    (node.job_dir / "exit.5.json.9.tmp").write_text('{"index": 5}\n')
    seen = node.poll_array('{"index": 7}\n')
    assert sorted(lines(seen.evidence.exit_file)) == ['{"index": 0}', '{"index": 11}']
    assert lines(seen.evidence.verdict) == ['{"index": 7}'] and seen.files_read
    both = ['{"index": 7}', '{"index": 8}']
    assert lines(node.poll_array('{"index": 8}\n').evidence.verdict) == both
    assert lines(node.poll_array().evidence.verdict) == both


def test_a_conclusion_is_kept_and_the_ends_of_logs_are_shown(node: LoginNode) -> None:
    (node.job_dir / "job.log").write_text("".join(f"line {n}\n" for n in range(100)))
    shown = node.run(conclude(str(node.job_dir), verdict="{}")).decode().splitlines()
    assert (len(shown), shown[-1]) == (20, "line 99")
    assert (node.job_dir / "verdict.json").read_text() == "{}"
    (node.job_dir / "job.7.log").write_text("seven, no line end")
    (node.job_dir / "job.9.log").write_text("".join(f"line {n}\n" for n in range(100)))
    logs = [f"job.{index}.log" for index in (7, 8, 9)]
    shown = node.run(conclude(str(node.job_dir), verdict="{}", logs=logs)).decode().split("\n")
    assert shown[:4] == ["job.7.log:", "seven, no line end", "job.9.log:", "line 94"]


def test_a_file_is_written_whole(node: LoginNode) -> None:
    path = node.root / "new folder" / "file"
    node.run(write_file(str(path), b"\x00 content"))
    assert path.read_bytes() == b"\x00 content" and [*path.parent.iterdir()] == [path]
