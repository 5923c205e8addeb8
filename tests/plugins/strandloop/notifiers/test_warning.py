"""A warning reaches whoever the Airflow variable names, over a real connection; what cannot be sent is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperator

from strandloop.notifiers.warning import WarningNotifier

HTTP = "airflow.providers.http.notifications.http.HttpNotifier"
VERDICT = 'Batch 2026-11-20 is unlike the 3 batches before it: "<40 %> of its reads are alone".'


@dataclass
class TaskInstance:
    """What the notifier reads of the task that has ended."""

    returned: dict[str, Any] | None
    task_id: str = "drift"

    def xcom_pull(self, task_ids: str) -> Any:
        return self.returned if task_ids == self.task_id else None


@dataclass
class Webhook:
    """A server that keeps what it is sent."""

    status: int = 200
    received: list[tuple[str, str, Any]] = field(default_factory=list)


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """The server behind the Airflow connection ``people``, whose password it wants to see."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.received.append((self.path, self.headers["Authorization"], body))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the tests' output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("AIRFLOW_CONN_PEOPLE", f"http://loop:secret@127.0.0.1:{server.server_port}")
    yield hook
    server.shutdown()
    server.server_close()


def tell(entries: Any, monkeypatch: pytest.MonkeyPatch, returned: dict[str, Any] | None = None) -> None:
    """End a task that returned a warning, with the variable set to ``entries``."""
    monkeypatch.setenv("AIRFLOW_VAR_STRANDLOOP_WARNING_NOTIFIERS", json.dumps(entries))
    with DAG("daily", schedule=None) as dag:
        task = BaseOperator(task_id="drift")
    ti = TaskInstance(returned if returned is not None else {"warning": True, "verdict": VERDICT})
    WarningNotifier()({"ti": ti, "task": task, "dag": dag})


def entry(conn_id: str = "people") -> dict[str, Any]:
    arguments = {
        "http_conn_id": conn_id,
        "endpoint": "hooks/1",
        "json": {"text": "{{ dag.dag_id }}: {{ warning }}"},
    }
    return {"notifier": HTTP, "arguments": arguments}


def test_a_warning_is_logged_and_sent(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell([entry()], monkeypatch)
    path, authorization, body = webhook.received[0]
    assert (len(webhook.received), path, body) == (1, "/hooks/1", {"text": f"daily: {VERDICT}"})
    assert authorization.startswith("Basic ")
    assert VERDICT in capsys.readouterr().out


def test_nobody_is_told_where_there_is_no_warning(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    tell([entry()], monkeypatch, {"warning": False, "verdict": "Batch b is like the batch before it."})
    assert webhook.received == []


def test_without_notifiers_the_warning_is_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell([], monkeypatch)
    assert VERDICT in capsys.readouterr().out


@pytest.mark.parametrize(
    "broken",
    [
        entry("nowhere"),
        {"notifier": "no.such.Notifier"},
        {"notifier": "json.dumps"},
        {"arguments": {}},
        {"notifier": HTTP, "arguments": {"no_such": 1}},
    ],
    ids=["no connection", "no such class", "no notifier", "no class", "wrong arguments"],
)
def test_one_that_fails_is_an_error_in_the_log_and_the_others_are_told(
    broken: dict[str, Any],
    webhook: Webhook,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell([broken, entry()], monkeypatch)
    assert len(webhook.received) == 1
    error = re.search(
        r"\[error *\] The warning was not sent by entry (\d) of the variable (\w+)", capsys.readouterr().out
    )
    assert error and error.groups() == ("1", "strandloop_warning_notifiers")


def test_a_server_that_refuses_is_an_error_in_the_log(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook.status = 403
    tell([entry()], monkeypatch)
    said = capsys.readouterr().out
    assert "The warning was not sent by entry 1" in said
    assert "secret" not in said


@pytest.mark.parametrize("value", [{"notifier": HTTP}, "HttpNotifier"])
def test_a_variable_that_is_no_list_is_an_error_in_the_log(
    value: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(value, monkeypatch)
    assert "The warning was sent to nobody" in capsys.readouterr().out
