"""The local Slurm with its daemons killed, restarted and robbed of their memory."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from infra.local.memory_cgroup import MemoryCgroup
from infra.local.process_table import marked, process_table, with_descendants
from infra.local.processes import MARK
from infra.local.slurm import NODES
from infra.local.slurm_conf import spool
from infra.local.stack import Stack
from tests.faults.conditions import until

#: Quick where a real cluster takes minutes. ``busy`` takes any number of jobs, for two cores are few;
#: ``closed`` takes jobs and starts none.
SITE_CONF = f"""
SlurmdTimeout=10
MinJobAge=20
PartitionName=busy Nodes={",".join(NODES)} OverSubscribe=FORCE:32 Default=YES MaxTime=INFINITE State=UP
PartitionName=closed Nodes={",".join(NODES)} MaxTime=INFINITE State=DOWN
"""


class SlurmFaults:
    """Breaks and mends the stack's Slurm, and asks it directly, past every other fault."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def run(self, *arguments: str) -> str:
        """What one of Slurm's commands says."""
        done = self._stack.slurm.run(*arguments)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def sees_memory_kills(self) -> bool:
        """Whether Slurm confines jobs by control groups, and so knows why a process was killed."""
        return MemoryCgroup(self._stack.layout).available()

    def alive(self, names: list[str]) -> int:
        """Jobs of these names that wait or run."""
        states = self.run("squeue", "--noheader", f"--name={','.join(names)}", "--format=%T").split()
        return sum(state != "COMPLETING" for state in states)

    def picture(self) -> str:
        """The queue and the nodes, each with Slurm's reasons."""
        return self.run("squeue", "--format=%i %j %T %r %N") + self.run(
            "sinfo", "--Node", "--format=%N %T %E"
        )

    def mend(self) -> None:
        """Every node takes jobs: Slurm drains one where a job could not be launched."""
        for line in self.run(
            "sinfo", "--Node", "--noheader", "--partition=busy", "--format=%N %T"
        ).splitlines():
            node, state = line.split()
            if state.startswith("drain"):
                self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")

    @contextmanager
    def nodes_lost(self) -> Iterator[None]:
        """Both nodes lose power, with all that runs there; at the end of the block new machines are there."""
        table = process_table()
        lost = {
            pid
            for node in NODES
            for pid in with_descendants(
                marked(f"{MARK}={self._stack.layout.runtime}/slurmd-{node}/", table), table
            )
        }
        for number in (signal.SIGSTOP, signal.SIGKILL):  # nobody may notice the other's end
            for pid in lost:
                _send(pid, number)
        for node in NODES:
            # What is left there of killed jobs would meet later jobs of the same numbers: slurmd looks for the
            # old ones, finds nobody, and removes the new ones' scripts before they have started.
            shutil.rmtree(spool(self._stack.layout, node))
        try:
            yield
        finally:
            self._stack.slurm.bring_up()

    @contextmanager
    def controller_down(self) -> Iterator[None]:
        """The controller is killed, and started again at the end of the block.

        What it has not written down by then it does not know afterwards: a job of which it does not know
        that it runs is started once more. So it is given the few seconds that it takes to write.
        """
        saved, now = self._stack.layout.state / "slurm" / "state" / "job_state", time.time()
        self.job_of_somebody_else()  # something to write
        until(
            lambda: saved.exists() and saved.stat().st_mtime > now, what="the controller has saved its state"
        )
        self._stack.processes.kill("slurmctld")
        try:
            yield
        finally:
            self._stack.slurm.bring_up()

    def forget_all_jobs(self) -> None:
        """The controller is rebuilt: it knows no job, and counts from 1 again."""
        self._stack.slurm.wipe()

    def job_of_somebody_else(self) -> int:
        """Submit a job that ends well at once, and return its number."""
        return int(self.run("sbatch", "--parsable", "--output=/dev/null", "--mem=16M", "--wrap=true"))

    def wait_until_forgotten(self, number: str) -> None:
        """Wait until the controller does not know a job that has ended."""
        until(
            lambda: self._stack.slurm.run("scontrol", "show", "job", number).returncode != 0,
            seconds=150,
            what=f"the controller has forgotten job {number}",
        )

    def start_requeued(self, number: str) -> None:
        """Start a requeued job soon: Slurm holds it for two minutes.

        Not at once: the end that the controller tells the old run, and repeats, would meet the new one.
        """
        until(
            lambda: "JobState=PENDING" in self.run("scontrol", "show", "job", number),
            seconds=60,
            what=f"job {number} is in the queue again",
        )
        self.run("scontrol", "update", f"JobId={number}", "StartTime=now+10")


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended meanwhile
