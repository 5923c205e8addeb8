"""What a fault test works with: jobs that count themselves, and the rows that they end in."""

from __future__ import annotations

import json
import shlex
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.environment import read_environment
from infra.local.process_table import marked, process_table
from infra.local.processes import MARK
from infra.local.stack import Stack
from strandloop.job_identity import job_identity
from tests.faults.airflow_services import AirflowServices, Run
from tests.faults.conditions import until
from tests.faults.login_node import LoginNode
from tests.faults.matrix import Row
from tests.faults.proxy import Proxy
from tests.faults.ray_faults import RayFaults
from tests.faults.slurm_faults import SITE_CONF, SlurmFaults
from tests.plugins.strandloop.played_pcluster import PlayedPcluster, played_pcluster

#: A job that has ended may be seen completing for a moment.
COMPLETING_SECONDS = 20.0
#: Clears in one test.
GENERATIONS = 6
WHOLE = "whole"

PARTS = ("shared", "slurm", "ssh")
#: What Slurm runs with, by its name in the matrix.
SETTINGS = {"Slurm": PARTS, "Slurm + slurmdbd": ("accounting", *PARTS)}


@dataclass(frozen=True)
class CountedJob:
    """A job that appends a line whenever it starts, may wait for a file, and leaves a result at its end."""

    folder: Path

    def script(self, body: str = "", *, directives: str = "") -> str:
        """The batch script: count, do ``body``, leave the result."""
        return (
            f"#!/bin/bash\n{directives}\n"
            f'echo "${{SLURM_JOB_ID:-$$}}" >> {self._quoted("starts")}\n'
            f"{body}\n"
            f"echo {WHOLE} > {self._quoted('result')}\n"
        )

    def entrypoint(self, body: str = "") -> str:
        """The same as shell text for Ray."""
        return self.script(body).removeprefix("#!/bin/bash\n\n")

    @property
    def wait(self) -> str:
        """Shell text that waits until :meth:`go`."""
        return f"while [ ! -e {self._quoted('go')} ]; do sleep 0.1; done"

    def go(self) -> None:
        """Let the job go on."""
        (self.folder / "go").touch()

    @property
    def starts(self) -> list[str]:
        """The number of the job, once for each time that one started."""
        path = self.folder / "starts"
        return path.read_text().split() if path.exists() else []

    def wait_until_started(self, *, times: int = 1) -> str:
        """Wait for the job's first line and return its number."""
        return until(
            lambda: self.starts[times - 1] if len(self.starts) >= times else None,
            what=f"a job has started {times} times",
        )

    @property
    def result_whole(self) -> bool:
        """Whether the job came to its end."""
        path = self.folder / "result"
        return path.exists() and path.read_text().strip() == WHOLE

    def _quoted(self, name: str) -> str:
        return shlex.quote(str(self.folder / name))


@dataclass
class World:
    """A running stack and Airflow, and the places where faults are set.

    :param ssh: between Airflow and the login node.
    :param dashboard: between Airflow and Ray's dashboard.
    :param pcluster: a played ParallelCluster, whose head node is the login node.
    :param setting: name of the Slurm in the matrix.
    """

    airflow: AirflowServices
    slurm: SlurmFaults
    ray: RayFaults
    login: LoginNode
    ssh: Proxy
    dashboard: Proxy
    pcluster: PlayedPcluster
    folder: Path
    setting: str
    rows: list[Row] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def job(self) -> CountedJob:
        """A job with a folder of its own on the shared file system."""
        folder = self.folder / "counted" / uuid.uuid4().hex[:8]
        folder.mkdir(parents=True)
        return CountedJob(folder)

    def run_seen_running(self, dag_id: str, job: CountedJob, body: str, **conf: str) -> Run:
        """Start a run, and return it once its task has seen the job running."""
        run = self.airflow.trigger(dag_id, body=body, **conf)
        self.until_seen_running((run, job))
        return run

    def until_seen_running(self, *started: tuple[Run, CountedJob]) -> None:
        """Wait until the tasks of these runs have seen their jobs running."""
        for run, job in started:
            try:
                job.wait_until_started()
            except AssertionError as error:
                error.add_note(f"{self.slurm.picture()}\n{run.log()}")
                raise
            until(lambda run=run: "RUNNING" in run.log(), what=f"{run.run_id} has seen its job running")

    def identities(self, run: Run) -> list[str]:
        """The names that the run's Slurm job may have had, that of the first job first."""
        task_id = "submit" if run.dag_id.endswith("_sensor") else "job"
        return [
            job_identity(run.dag_id, run_id=run.run_id, task_id=task_id, map_index=-1, generation=generation)
            for generation in range(GENERATIONS)
        ]

    def job_dir(self, run: Run) -> Path:
        """Where the first attempt of the run's first job lives."""
        return self.folder / "jobs" / self.identities(run)[0] / "1"

    def log_marks(self, run: Run) -> bool:
        """Whether the cluster keeps how far the whole log of the run's job was read."""
        log = self.job_dir(run) / "job.log"
        return any(int(mark.read_text() or 0) == log.stat().st_size for mark in log.parent.glob("read.*-*"))

    def alive(self, run: Run) -> int:
        """Jobs of a run that are waiting or running."""
        if run.dag_id.startswith("ray"):
            return self.ray.alive(run.run_id)
        return self.slurm.alive(self.identities(run))

    def row(
        self,
        number: int,
        fault: str,
        run: Run,
        job: CountedJob,
        *,
        expected: str,
        jobs: int = 1,
        result: bool = True,
        says: str = "",
    ) -> None:
        """Wait for the task's end and put down what happened; what is not right fails the test at its end.

        :param expected: the right final state of the task.
        :param jobs: how often a job should have started.
        :param result: whether a green task must have a whole result.
        :param says: words that the task's log must hold.
        """
        state = run.end()
        give_up_at = time.monotonic() + COMPLETING_SECONDS
        while (alive := self.alive(run)) and time.monotonic() < give_up_at:
            time.sleep(0.2)  # between two looks at the queue
        _, mode, *rest = run.dag_id.split("_")
        system = "Ray" if run.dag_id.startswith("ray") else self.setting
        row = Row(
            number,
            fault,
            f"{system}, {mode}{' sensor' if rest == ['sensor'] else ''}",
            expected=expected,
            state=state,
            jobs=len(job.starts),
            expected_jobs=jobs,
            alive=alive,
            result_right=job.result_whole or expected != "success" or not result,
        )
        self.rows.append(row)
        log = run.log()
        if not row.right:
            self.problems.append(f"{row}\n{log}")
        if says not in log:
            self.problems.append(f"the log does not say {says!r}:\n{log}")


@contextmanager
def running_world(state: Path, setting: str) -> Iterator[World]:
    """Bring up a stack and an Airflow below ``state``; at the end of the block nothing of them is left.

    :param setting: one of :data:`SETTINGS`.
    """
    stack = Stack(state, free_ports=True, slurm_site_conf=SITE_CONF)
    with ExitStack() as ending:
        ending.callback(stack.down)
        stack.up(SETTINGS[setting])
        login = LoginNode(stack, state / "login")
        login.start_sshd()
        ssh, dashboard = Proxy(stack.ports["ssh"]), Proxy(stack.ports["ray-dashboard"])
        ending.callback(ssh.close)
        ending.callback(dashboard.close)
        environment = read_environment(stack.layout)
        connection = json.loads(environment["AIRFLOW_CONN_SLURM"])
        folder = stack.layout.shared / "faults"
        (state / "pcluster").mkdir()
        pcluster, clusters = ending.enter_context(
            played_pcluster(state / "pcluster", environment["AIRFLOW_CONN_SLURM"])
        )
        airflow = AirflowServices(
            state / "airflow",
            port=stack.ports["airflow"],
            processes=stack.processes,
            environment={
                **environment,
                **clusters,
                "AIRFLOW_CONN_SLURM": json.dumps({**connection, "port": ssh.port}),
                "AIRFLOW_CONN_RAY": f"http://127.0.0.1:{dashboard.port}",
                "FAULT_JOB_ROOT": str(folder / "jobs"),
            },
        )
        ending.callback(airflow.down)
        airflow.up()
        slurm, ray = SlurmFaults(stack), RayFaults(stack)
        yield World(airflow, slurm, ray, login, ssh, dashboard, pcluster, folder, setting)
    assert not marked(f"{MARK}={stack.layout.runtime}/", process_table())
