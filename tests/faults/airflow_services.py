"""A whole Airflow of its own: API server, scheduler, triggerer and DAG processor as plain processes.

They are started, killed and ended through the stack's process records, so nothing of them outlives it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from infra.local.layout import PROJECT
from infra.local.process_table import process_table
from infra.local.processes import Processes
from tests.faults.conditions import until

DAGS = Path(__file__).with_name("dags")
LAST_DAG = "slurm_daily"
COMPONENTS = ("api-server", "scheduler", "triggerer", "dag-processor")
FINAL = {"success", "failed", "upstream_failed", "skipped", "removed"}
#: Airflow's own waits are minutes by default; the faults are the same with seconds.
QUICK = {
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "30",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}


class AirflowServices:
    """Starts Airflow's components, speaks with its REST API, and kills what it is told to kill.

    :param home: AIRFLOW_HOME, which also holds logs and notes of task processes.
    :param environment: connections and paths for every component.
    """

    def __init__(
        self, home: Path, *, port: int, processes: Processes, environment: Mapping[str, str]
    ) -> None:
        self.home = home
        self.pids = home / "pids"
        self.pids.mkdir(parents=True, exist_ok=True)
        self._processes = processes
        self._sessions: set[int] = set()
        self._url = f"http://127.0.0.1:{port}"
        programs = Path(sys.executable).parent
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            **environment,
            **QUICK,
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": os.pathsep.join([str(PROJECT / "plugins"), str(PROJECT)]),
            "FAULT_PIDS": str(self.pids),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "no-plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self._url}/execution/",
            # Writers of one SQLite file must wait for each other longer than the default of 5 s.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=20",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self._url,
            "AIRFLOW__API__SECRET_KEY": uuid.uuid4().hex,
            "AIRFLOW__API_AUTH__JWT_SECRET": uuid.uuid4().hex,
        }
        self._client = httpx.Client(base_url=f"{self._url}/api/v2", timeout=60, trust_env=False)

    def up(self) -> None:
        """Make the database, start every component, and wait until it has read the DAGs."""
        subprocess.run(
            [sys.executable, "-m", "airflow", "db", "migrate"],
            env=self.environment,
            check=True,
            capture_output=True,
            timeout=200,
        )
        _make_sqlite_fit(self.home / "airflow.db")
        for component in COMPONENTS:
            self.start(component)
        until(self._ready, seconds=180, what="Airflow is up and has read the DAGs")

    def down(self) -> None:
        """End every component with all that it started."""
        self._client.close()
        for component in reversed(COMPONENTS):
            self._processes.end(f"airflow-{component}")
        # The workers of a scheduler that was killed are known by nothing but their session.
        for process in process_table().values():
            if process.session in self._sessions:
                os.kill(process.pid, signal.SIGKILL)

    def start(self, component: str) -> None:
        """Start one component; it goes on with what the database holds."""
        command = [sys.executable, "-m", "airflow", component]
        self._processes.start(f"airflow-{component}", command, env=self.environment)
        self._sessions.add(self._pid(component))

    def kill(self, component: str) -> None:
        """SIGKILL a component's own process, and nothing that it started."""
        self._processes.kill(f"airflow-{component}")

    def kill_all_of(self, component: str) -> None:
        """SIGKILL a component with all of its processes, as a machine that loses power does."""
        os.killpg(self._pid(component), signal.SIGKILL)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """One question to the REST API, again while SQLite is locked (500, 503); its answer as JSON."""

        def answered() -> httpx.Response | None:
            answer = self._client.request(method, path, **options)
            return None if answer.is_server_error else answer

        answer = until(answered, what=f"{method} {path} is answered")
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text[:2000]}"
        return answer.json() if answer.content else None

    def trigger(self, dag_id: str, **conf: Any) -> Run:
        """Start a run of a DAG, as a person does in the UI."""
        run_id = f"run-{uuid.uuid4().hex[:8]}"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self.ask("POST", f"/dags/{dag_id}/dagRuns", json=body)
        return Run(self, dag_id, run_id)

    def healthy(self) -> bool:
        """Whether scheduler and triggerer have given signs of life within seconds."""
        health = self.ask("GET", "/monitor/health")
        return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer"))

    def _pid(self, component: str) -> int:
        record = self._processes.record(f"airflow-{component}")
        assert record is not None
        return record.pid

    def _ready(self) -> bool:
        try:
            errors = self.ask("GET", "/importErrors")["import_errors"]
        except (httpx.HTTPError, AssertionError):
            return False
        assert not errors, errors[0]["stack_trace"]
        found = {dag["dag_id"] for dag in self.ask("GET", "/dags")["dags"]}
        return LAST_DAG in found and self.healthy()


@dataclass(frozen=True)
class Run:
    """One run of a fault DAG, seen through its task ``job``."""

    airflow: AirflowServices
    dag_id: str
    run_id: str

    @property
    def path(self) -> str:
        """Where the REST API keeps the run."""
        return f"/dags/{self.dag_id}/dagRuns/{self.run_id}"

    def instance(self, task_id: str = "job") -> dict[str, Any]:
        """What Airflow says of the task instance."""
        return self.airflow.ask("GET", f"{self.path}/taskInstances/{task_id}")

    @property
    def state(self) -> str:
        """State of the task; ``none`` before it was scheduled."""
        return str(self.instance()["state"]).lower()

    def wait_for(self, *states: str, seconds: float = 240) -> str:
        """Wait until the task is in one of these states, and return which."""
        return until(
            lambda: state if (state := self.state) in states else None,
            seconds=seconds,
            what=lambda: (
                f"{self.dag_id} {self.run_id} is {self.state}, not {' or '.join(states)}\n{self.log()}"
            ),
        )

    def end(self, *, seconds: float = 240) -> str:
        """Wait for a final state and return it."""
        return self.wait_for(*FINAL, seconds=seconds)

    def mark(self, state: str) -> None:
        """Mark the task failed or success, as a person does in the UI."""
        self.airflow.ask("PATCH", f"{self.path}/taskInstances/job", json={"new_state": state})

    def clear(self) -> None:
        """Clear the task, as a person does in the UI."""
        body = {"dry_run": False, "only_failed": False, "task_ids": ["job"], "dag_run_id": self.run_id}
        self.airflow.ask("POST", f"/dags/{self.dag_id}/clearTaskInstances", json=body)

    def xcom(self, key: str) -> Any:
        """An XCom of the task; None if there is none."""
        path = f"{self.path}/taskInstances/job/xcomEntries"
        found = {entry["key"] for entry in self.airflow.ask("GET", path)["xcom_entries"]}
        return self.airflow.ask("GET", f"{path}/{key}")["value"] if key in found else None

    def processes(self, *, tries: int = 1) -> dict[str, int]:
        """Process ids of the task and of its worker, once this try has begun."""
        note = self.airflow.pids / f"{self.dag_id}.{self.run_id}.job.json"

        def noted() -> dict[str, int] | None:
            value = json.loads(note.read_text()) if note.exists() else {}
            return value if value.get("try", 0) >= tries else None

        return until(noted, seconds=120, what=f"try {tries} of {self.run_id} has begun")

    def kill_worker(self, *, tries: int = 1) -> None:
        """SIGKILL the task and the executor's worker that supervises it."""
        pids = self.processes(tries=tries)
        for pid in (pids["worker"], pids["task"]):
            os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        """Everything that the task's tries have logged, in the worker and in the triggerer."""
        folder = (
            self.airflow.home / "logs" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}" / "task_id=job"
        )
        texts = []
        for path in sorted(folder.glob("attempt=*.log*")):
            texts += [_line(line) for line in path.read_text(errors="replace").splitlines()]
        return "\n".join(texts)


def _make_sqlite_fit(database: Path) -> None:
    """Make SQLite do what the databases do that Airflow is run on for real.

    Readers do not hold writers up (write-ahead log). And ids of triggers count on: by itself SQLite gives
    that of the trigger that was deleted last to the next one, and Airflow takes the end of the one for the
    end of the other: seen as a task that failed when it was cleared while deferred.
    """
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        found = connection.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = 'trigger' ORDER BY type DESC"
        )
        table, *indexes = [sql for (sql,) in found]
        counting = table.replace("id INTEGER NOT NULL", "id INTEGER PRIMARY KEY AUTOINCREMENT", 1)
        counting = counting.replace("CONSTRAINT trigger_pkey PRIMARY KEY (id),", "")
        assert "AUTOINCREMENT" in counting and "trigger_pkey" not in counting
        for statement in ("DROP TABLE trigger", counting, *indexes):
            connection.execute(statement)


def _line(line: str) -> str:
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    details = "".join(
        f"\n{detail['exc_type']}: {detail['exc_value']}" for detail in entry.get("error_detail") or ()
    )
    return f"{entry.get('event', '')}{details}"
