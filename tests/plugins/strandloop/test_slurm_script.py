"""The wrapper around the user's script, as text and run for real by bash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from strandloop.errors import InvalidJob
from strandloop.slurm_script import DUPLICATE, array_of, batch_script

SCRIPT = """\
#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node 4
# a comment
#SBATCH -o elsewhere-%j.log -J "my job"   # where the log goes
#SBATCH --comment='two words' --chdir /tmp

#SBATCH --output=elsewhere.log
set -e
#SBATCH --array=1-3
echo done
"""

GOLDEN = Path(__file__).with_name("golden") / "wrapper.sbatch"


@dataclass(frozen=True)
class Node:
    """Stands for the node of a job: a directory, and the environment that slurmd would set."""

    job_dir: Path

    def start(
        self,
        script: str,
        *args: str,
        job_id: str = "7",
        restarts: int | None = None,
        element: tuple[str, str] | None = None,
        **environment: str,
    ) -> subprocess.Popen[bytes]:
        (self.job_dir / "script.sbatch").write_text(script)
        text = batch_script(
            script,
            job_dir=str(self.job_dir),
            script_args=args,
            environment=environment,
            array=element is not None,
        )
        slurm = {"SLURM_JOB_ID": job_id, "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_NUM_NODES": "2"}
        if element is not None:
            slurm |= {"SLURM_ARRAY_JOB_ID": element[0], "SLURM_ARRAY_TASK_ID": element[1]}
        if restarts is not None:
            slurm["SLURM_RESTART_COUNT"] = str(restarts)
        process = subprocess.Popen(
            ["bash", "-s"], stdin=subprocess.PIPE, stdout=self.log.open("ab"), stderr=subprocess.STDOUT,
            env={**os.environ, **slurm},
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(text.encode())
        process.stdin.close()
        return process

    def run(self, script: str, *args: str, **arguments: Any) -> int:
        return self.start(script, *args, **arguments).wait(20)

    @property
    def log(self) -> Path:
        return self.job_dir / "job.log"

    @property
    def report(self) -> dict[str, object]:
        return dict(json.loads((self.job_dir / "exit.json").read_text()))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    job_dir = tmp_path / "my jobs" / "1"
    job_dir.mkdir(parents=True)
    return Node(job_dir)


def test_the_whole_text_is_as_recorded() -> None:
    """Its head repeats the script's options, without those that are ours."""
    text = batch_script(
        SCRIPT,
        job_dir="/fsx/my jobs/1",
        script_args=["two words", "$HOME", ""],
        environment={"WHO": "a, b's $HOME"},
    )
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize(
    "option",
    ["--wait", "-W", "--wrap=true", "--test-only", "-M other", "--clusters=other", "--clust=other", "hetjob"],
)
def test_a_submission_must_be_one_job_of_this_cluster(option: str) -> None:
    with pytest.raises(InvalidJob, match="not supported"):
        batch_script(f"#!/bin/bash\n#SBATCH {option}\n", job_dir="/j")


@pytest.mark.parametrize("option", ["--array=1-9%2", "--array 1-9%2", "-a 1-9%2", "-a1-9%2", "--arr=1-9%2"])
def test_an_array_of_the_script_is_found_and_left_to_the_submission(option: str) -> None:
    script = f"#!/bin/bash\n#SBATCH --array=5\n#SBATCH --nodes=2 {option} --account=a1\ntrue"
    assert array_of(script) == "1-9%2"
    head = batch_script(script, job_dir="/j", array=True).splitlines()[1]
    assert head == "#SBATCH --nodes=2 --account=a1"
    assert array_of("#!/bin/bash\n#SBATCH --account=a1\ntrue\n#SBATCH --array=1-9") is None


def test_a_name_that_no_shell_can_export_is_refused() -> None:
    with pytest.raises(InvalidJob, match="A-B"):
        batch_script("true", job_dir="/j", environment={"A-B": "1"})


def test_success_is_reported(node: Node) -> None:
    assert node.run('echo "$1|$2|$WHO"', "two words", "$HOME", WHO="a, b's") == 0
    assert node.log.read_text() == "two words|$HOME|a, b's\n"
    report = node.report
    assert report.pop("started_at") <= report.pop("ended_at")  # type: ignore[operator]
    assert report == {
        "job_id": "7", "index": None, "exit_code": 0, "signal": None, "told": "", "oom_kills": 0,
        "hosts": "n[1-2]", "nodes": 2, "restart_count": 0,
    }  # fmt: skip
    assert not list(node.job_dir.glob("*.tmp"))


def test_failure_is_reported(node: Node) -> None:
    assert node.run("exit 3") == 3
    assert (node.report["exit_code"], node.report["signal"]) == (3, None)


def test_death_by_signal_is_reported(node: Node) -> None:
    assert node.run("kill -9 $$") == 137
    assert (node.report["exit_code"], node.report["signal"], node.report["told"]) == (137, 9, "")


@pytest.mark.parametrize(
    ("script", "sent", "code", "told"),
    [
        ("trap 'echo saved; exit 0' USR1; touch up; while :; do sleep 0.05; done", signal.SIGUSR1, 0, "USR1"),
        ("touch up; exec sleep 30", signal.SIGTERM, 143, "TERM"),
        ("trap 'exit 9' TERM; touch up; while :; do sleep 0.05; done", signal.SIGTERM, 9, "TERM"),
    ],
)
def test_signals_are_forwarded(node: Node, script: str, sent: int, code: int, told: str) -> None:
    process = node.start(f"cd '{node.job_dir}'; {script}")
    wait_for(node.job_dir / "up")
    process.send_signal(sent)
    assert process.wait(10) == code
    assert (node.report["exit_code"], node.report["told"]) == (code, told)


def test_a_second_job_in_the_same_directory_does_nothing(node: Node) -> None:
    assert node.run("echo once", job_id="7") == 0
    assert node.run("echo once", job_id="8") == DUPLICATE
    assert node.log.read_text().count("once") == 1
    assert node.report["job_id"] == "7"


def test_a_job_that_slurm_starts_again_puts_the_earlier_report_aside(node: Node) -> None:
    node.run("exit 1")
    assert node.run("echo again", restarts=1) == 0
    assert (node.report["exit_code"], node.report["restart_count"]) == (0, 1)
    assert json.loads((node.job_dir / "exit.before-restart-1.json").read_text())["exit_code"] == 1


def test_a_job_that_has_succeeded_is_not_run_again(node: Node) -> None:
    node.run("echo once")
    report = node.report
    assert node.run("echo once", restarts=1) == 0
    assert node.log.read_text().count("once") == 1 and node.report == report


@pytest.mark.parametrize("told", ["TERM", "USR1"])
def test_a_job_that_has_saved_its_state_goes_on_when_it_is_started_again(node: Node, told: str) -> None:
    """Preempted, or put back by its own trap: that it ended with 0 does not make it done."""
    script = f"cd '{node.job_dir}'; trap 'echo saved; exit 0' {told}; touch up; while :; do sleep 0.05; done"
    process = node.start(script)
    wait_for(node.job_dir / "up")
    process.send_signal(getattr(signal, f"SIG{told}"))
    assert process.wait(10) == 0
    assert node.run("echo goes on", restarts=1) == 0
    assert node.log.read_text() == "saved\ngoes on\n" and node.report["restart_count"] == 1


def test_the_elements_of_an_array_are_one_job_with_a_report_each(node: Node) -> None:
    script = "echo element $SLURM_ARRAY_TASK_ID; exit $SLURM_ARRAY_TASK_ID"
    running = [node.start(script, job_id=str(8 + i), element=("7", str(i))) for i in range(4)]
    assert [process.wait(20) for process in running] == [0, 1, 2, 3]
    reports = [json.loads((node.job_dir / f"exit.{i}.json").read_text()) for i in range(4)]
    assert [(r["job_id"], r["index"], r["exit_code"]) for r in reports] == [("7", i, i) for i in range(4)]
    assert (node.job_dir / "owner").read_text() == "7\n"
    # An element of a second array, and one that Slurm starts again.
    assert node.run(script, job_id="20", element=("19", "0")) == DUPLICATE
    assert node.run(script, job_id="10", restarts=1, element=("7", "2")) == 2
    assert (node.job_dir / "exit.before-restart-1.2.json").exists()


def test_the_script_s_environment_does_not_reach_the_wrapper(node: Node) -> None:
    assert node.run("echo $job $PATH", job="mine", PATH="/nowhere", restart="9") == 0
    assert node.log.read_text() == "mine /nowhere\n"
    assert (node.report["exit_code"], node.report["restart_count"]) == (0, 0)


def wait_for(path: Path) -> None:
    give_up_at = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
