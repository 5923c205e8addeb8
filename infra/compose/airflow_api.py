"""What a user does through Airflow's REST API: log in, unpause a DAG, trigger it, look at its runs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

POLL_SECONDS = 1.0
#: A server that restarts is asked again for so long.
PATIENCE_SECONDS = 120.0


class AirflowApiError(Exception):
    """The API server refused a request or does not answer; the message holds its words."""


class AirflowApi:
    """Airflow's REST API, version 2.

    :param url: of the API server, for example ``http://127.0.0.1:27030``.
    """

    def __init__(self, url: str, *, user: str, password: str) -> None:
        self._url = url
        self._token = ""
        self._token = self._ask("POST", "/auth/token", {"username": user, "password": password})[
            "access_token"
        ]

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start; waits until the DAG is known, which takes a new installation some seconds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._ask("PATCH", f"/api/v2/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
                return
            except AirflowApiError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run with these parameters; gives its id."""
        run = self._ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})
        return str(run["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The DAG's newest runs, newest first."""
        return list(self._ask("GET", f"/api/v2/dags/{dag_id}/dagRuns?order_by=-run_after")["dag_runs"])

    def state(self, dag_id: str, run_id: str) -> str:
        """``queued``, ``running``, ``success`` or ``failed``."""
        return str(self._ask("GET", _run_path(dag_id, run_id))["state"])

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """The run's task instances by task id; of a mapped task the last one."""
        found = self._ask("GET", f"{_run_path(dag_id, run_id)}/taskInstances?order_by=map_index")
        return {task["task_id"]: task for task in found["task_instances"]}

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """What the task returned, by XCom."""
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/return_value"
        return self._ask("GET", path)["value"]

    def started_by(self, dag_id: str, source_run_id: str) -> str | None:
        """The run of ``dag_id`` that an asset started which the other run updated; None where there is none yet."""
        for run in self.runs(dag_id):
            path = f"{_run_path(dag_id, run['dag_run_id'])}/upstreamAssetEvents"
            if source_run_id in [event["source_run_id"] for event in self._ask("GET", path)["asset_events"]]:
                return str(run["dag_run_id"])
        return None

    def watch(self, dag_id: str, run_id: str) -> Iterator[tuple[str, str]]:
        """Each task's id and state whenever that changes, until the run has ended."""
        seen: dict[str, str | None] = {}
        ended = False
        while not ended:
            ended = self.state(dag_id, run_id) in (
                "success",
                "failed",
            )  # first, so that no last change is missed
            for task_id, task in self.tasks(dag_id, run_id).items():
                if task["state"] and seen.get(task_id) != task["state"]:
                    yield task_id, task["state"]
                seen[task_id] = task["state"]
            if not ended:
                time.sleep(POLL_SECONDS)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, content, headers, method=method)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                with error:
                    words = error.read().decode(errors="replace")
                raise AirflowApiError(f"{method} {path}: {error.code} {words}") from error
            except OSError as error:
                # Only what changes nothing may be asked twice.
                if method != "GET" or time.monotonic() > deadline:
                    raise AirflowApiError(f"{method} {self._url}{path}: no answer ({error})") from error
            time.sleep(POLL_SECONDS)


def _run_path(dag_id: str, run_id: str) -> str:
    return f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"
