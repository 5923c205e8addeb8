"""The local Ray with its head restarted and its worker node killed."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.local.part import ask
from infra.local.process_table import marked, process_table, with_descendants
from infra.local.processes import MARK
from infra.local.stack import Stack

WORK = Path(__file__).with_name("jobs") / "work_on_the_worker_node.py"


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

    def log_bytes(self, run_id: str) -> int:
        """How long the log of the run's only job is."""
        (job,) = self.jobs_of(run_id)
        _, answer = ask(f"{self._stack.ray.url}/api/jobs/{job['submission_id']}/logs")
        return len(answer["logs"].encode())

    def stop(self, run_id: str) -> None:
        """Stop the job of a run as a person does in the dashboard."""
        for job in self.jobs_of(run_id):
            ask(f"{self._stack.ray.url}/api/jobs/{job['submission_id']}/stop", method="POST")

    def work_on_the_worker_node(self, folder: Path) -> str:
        """An entrypoint whose only task starts on the worker node, and waits there for ever."""
        return shlex.join([sys.executable, str(WORK), str(folder)])

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
