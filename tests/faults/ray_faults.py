"""The local Ray with its head restarted and its worker node killed."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from infra.local.part import ask
from infra.local.process_table import marked, process_table, with_descendants
from infra.local.processes import MARK
from infra.local.stack import Stack

_ON_THE_WORKER = """
import os, pathlib, time, ray

ray.init(logging_level="WARNING")
head = os.environ["RAY_HEAD_NODE"] if "RAY_HEAD_NODE" in os.environ else ray.get_runtime_context().get_node_id()
other = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["NodeID"] != head]


@ray.remote(num_cpus=1, max_retries=3, scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(other[0], soft=True))
def work(folder):
    folder = pathlib.Path(folder)
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\\n")
    if len((folder / "starts").read_text().split()) == 1:
        time.sleep(600)
    (folder / "result").write_text("whole\\n")
    return "whole"


print(ray.get(work.remote(@FOLDER@)))
"""


class RayFaults:
    """Breaks and mends the stack's Ray, and asks it directly."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def jobs_of(self, run_id: str) -> list[dict[str, Any]]:
        """What Ray knows of the jobs of an Airflow run."""
        _, jobs = ask(f"{self._stack.ray.url}/api/jobs/")
        return [job for job in jobs if (job.get("metadata") or {}).get("run_id") == run_id]

    def alive(self, run_id: str) -> int:
        """Jobs of an Airflow run that wait or run."""
        return sum(job["status"] in ("PENDING", "RUNNING") for job in self.jobs_of(run_id))

    def stop(self, run_id: str) -> None:
        """Stop the job of a run as a person does in the dashboard."""
        for job in self.jobs_of(run_id):
            ask(f"{self._stack.ray.url}/api/jobs/{job['submission_id']}/stop", method="POST")

    def work_on_the_worker_node(self, folder: str) -> str:
        """An entrypoint whose only task runs on the worker node, and waits for ever the first time."""
        code = _ON_THE_WORKER.replace("@FOLDER@", repr(folder))
        return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)}"

    @contextmanager
    def worker_lost(self) -> Iterator[None]:
        """The worker node loses power until the end of the block."""
        table = process_table()
        family = with_descendants(marked(f"{MARK}={self._stack.layout.runtime}/ray-worker/", table), table)
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended meanwhile
        try:
            yield
        finally:
            self.up()

    def restart_head(self) -> None:
        """A new head, which knows nothing of the old one's jobs; these end with the old one."""
        self.down()
        self.up()

    def up(self) -> None:
        """Start what is down, and wait until both nodes are there."""
        ray = self._stack.ray
        for name in ray.down():
            ray.processes.end(name)
        ray.start()
        ray.processes.wait_until(ray.problem, what="Ray", watch=tuple(ray.port_of), timeout_s=120)

    def down(self) -> None:
        """End both nodes."""
        for name in reversed(list(self._stack.ray.port_of)):
            self._stack.processes.end(name)
        self._stack.ray.tidy()
