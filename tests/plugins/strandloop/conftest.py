"""A Ray head that is played: recorded answers of Ray 2.60, by call or over HTTP on a free loopback port."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from strandloop.ray_dialogue import Answer, Ask

VERSION = '{"version": "4", "ray_version": "2.60.0", "session_name": "session_2026-11-21_10-08-15"}'
NODES = json.dumps(
    {"data": {"summary": [{"raylet": {"state": state}} for state in ("ALIVE", "DEAD", "ALIVE")]}}
)
DUPLICATE = """Traceback (most recent call last):
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
ValueError: Job with submission_id job-1 already exists. Please use a different submission_id.
."""


@dataclass
class RayHead:
    """A head that knows jobs, each by the states that it shows at one look after the other.

    A submitted job goes through ``life``; at ``GONE`` the head forgets it, as a restarted one does.
    ``trouble`` answers the next requests instead of it, one each; None = no trouble this time.
    """

    jobs: dict[str, list[str]] = field(default_factory=dict)
    life: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    log: str = "starts\n"
    trouble: Iterator[Answer | None] = field(default_factory=lambda: iter(()))
    asked: list[str] = field(default_factory=list)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    clock: float = 1_000.0

    def __call__(self, ask: Ask) -> Answer:
        self.asked.append(f"{ask.method} {ask.path}")
        if (trouble := next(self.trouble, None)) is not None:
            return trouble
        match ask.method, ask.path.strip("/").split("/"):
            case "GET", ["api", "version"]:
                return Answer(200, VERSION)
            case "GET", ["nodes?view=summary"]:
                return Answer(200, NODES)
            case method, ["api", "packages", "gcs", name]:
                exists = name in self.packages
                self.packages |= {name} if method == "PUT" else set()
                return Answer(200 if exists or method == "PUT" else 404, "")
            case "POST", ["api", "jobs"]:
                assert ask.json is not None
                if ask.json["submission_id"] in self.jobs:
                    return Answer(500, DUPLICATE)
                self.submissions.append(ask.json)
                self.jobs[ask.json["submission_id"]] = list(self.life)
                return Answer(200, json.dumps({"submission_id": ask.json["submission_id"]}))
            case _, ["api", "jobs", name, *_] if self.jobs.get(name, ["GONE"])[0] == "GONE":
                return Answer(404, f"Job {name} does not exist")
            case "POST", ["api", "jobs", name, "stop"]:
                if self.jobs[name][0] in ("PENDING", "RUNNING"):
                    self.jobs[name] = ["RUNNING", "STOPPED"]
                return Answer(200, '{"stopped": true}')
            case "GET", ["api", "jobs", name, "logs"]:
                return Answer(200, json.dumps({"logs": self.log}))
            case "GET", ["api", "jobs", name]:
                return Answer(200, json.dumps(self.describe(name)))
        raise AssertionError(ask)

    def describe(self, name: str) -> dict[str, Any]:
        states = self.jobs[name]
        status = states.pop(0) if len(states) > 1 else states[0]
        return {"submission_id": name, "status": status, "start_time": 1_000_000, "message": ""}


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> RayHead:
    """A head to be called, whose clock is the dialogues' clock."""
    head = RayHead()
    monkeypatch.setattr("strandloop.ray_dialogue.now", lambda: head.clock)
    return head


@pytest.fixture
def served_head(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayHead]:
    """A head behind the connection ``ray``."""
    head = RayHead()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            head.headers = dict(self.headers)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            is_json = self.headers.get("Content-Type") == "application/json"
            answer = head(Ask(self.command, self.path, json=json.loads(body) if is_json else None))  # type: ignore[arg-type]
            assert answer.status is not None
            self.send_response(answer.status)
            self.end_headers()
            self.wfile.write(answer.text.encode())

        do_POST = do_PUT = do_GET

        def log_message(self, *_: Any) -> None:
            """Say nothing on stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("AIRFLOW_CONN_RAY", f"http://127.0.0.1:{server.server_port}")
    yield head
    server.shutdown()
    thread.join()
    server.server_close()
