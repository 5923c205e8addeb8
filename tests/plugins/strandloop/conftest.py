"""A Ray head that is played: recorded answers of Ray 2.60, by call or over HTTP on a free loopback port."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from strandloop.ray_bookmark import Bookmark
from strandloop.ray_dialogue import Answer, Ask, Dialogue, Fetch, Keep, Pause, Say

VERSION = '{"version": "4", "ray_version": "2.60.0", "session_name": "session_2026-11-21_10-08-15"}'
NODE = "23f7245a5869d47ee4d2a1ad0e974d6610bd972fba022393965ac86b"
ACTOR = "12a8fad165fb4b148377785001000000"
DUPLICATE = """Traceback (most recent call last):
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
ValueError: Job with submission_id job-1 already exists. Please use a different submission_id.
."""


@dataclass
class RayHead:
    """A head that knows jobs, each by the states that it shows at one look after the other.

    A submitted job goes through ``life``; at ``GONE`` the head forgets it, as a restarted one does. A job
    that waits for resources (``waiting``) is told to stop in vain, as by Ray.
    ``trouble`` answers the next requests instead of it, one each; None = no trouble this time.
    """

    jobs: dict[str, list[str]] = field(default_factory=dict)
    life: tuple[str, ...] = ("PENDING", "RUNNING", "SUCCEEDED")
    waiting: set[str] = field(default_factory=set)
    log: bytes = b"starts\n"
    trouble: Iterator[Answer | None] = field(default_factory=lambda: iter(()))
    asked: list[str] = field(default_factory=list)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    clock: float = 1_000.0
    #: When the driver of a job began to run, and when the head did; ms since the epoch.
    driver_since_ms: int = 0
    head_since_ms: int = 0
    #: Bytes after which the connection breaks that the log is read over.
    log_breaks_at: int | None = None

    def __call__(self, ask: Ask) -> Answer:
        self.asked.append(f"{ask.method} {ask.path}")
        if (trouble := next(self.trouble, None)) is not None:
            return trouble
        path, _, query = ask.path.partition("?")
        match ask.method, path.strip("/").split("/"):
            case "GET", ["api", "version"]:
                return Answer(200, VERSION)
            case "GET", ["api", "v0", "nodes"] if "is_head_node" in query:
                return _rows({"is_head_node": True, "start_time_ms": self.head_since_ms})
            case "GET", ["api", "v0", "nodes"]:
                return _rows({"state": "ALIVE"}, of=2)
            case "GET", ["api", "v0", "actors"]:
                return _rows({"actor_id": ACTOR, "class_name": "JobSupervisor"})
            case "GET", ["logical", "actors", name] if name == ACTOR:
                return Answer(200, json.dumps({"data": {"detail": {"startTime": self.driver_since_ms}}}))
            case method, ["api", "packages", "gcs", name]:
                exists = name in self.packages
                self.packages |= {name} if method == "PUT" else set()
                stored = exists or method == "PUT"
                return Answer(200 if stored else 404, "" if stored else f"Package {name} does not exist")
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
                if self.jobs[name][0] in ("PENDING", "RUNNING") and name not in self.waiting:
                    self.jobs[name] = ["RUNNING", "STOPPED"]
                return Answer(200, '{"stopped": true}')
            case "GET", ["api", "jobs", name]:
                return Answer(200, json.dumps(self.describe(name)))
        raise AssertionError(ask)

    def play(
        self,
        dialogue: Dialogue[Any],
        *,
        said: list[str] | None = None,
        kept: list[Bookmark] | None = None,
        instead: Callable[[Ask], Answer] | None = None,
    ) -> Any:
        """Play a dialogue by the head's clock, with the head or with what stands in front of it."""
        said, kept, answer = [] if said is None else said, [] if kept is None else kept, None
        while True:
            try:
                step = dialogue.send(answer)
            except StopIteration as end:
                return end.value
            answer = None
            match step:
                case Ask():
                    answer = (instead or self)(step)
                    self.clock += 0.01
                case Fetch(path, take):
                    answer = self.read_log(path)
                    if isinstance(answer, bytes):
                        size = max(5, len(answer) // 50)
                        for start in range(0, len(answer), size):
                            said.extend(take(answer[start : start + size]))
                        answer = Answer(200, "")
                case Pause(seconds):
                    self.clock += seconds
                case Say(lines):
                    said.extend(lines)
                case Keep(bookmark):
                    kept.append(bookmark)

    def read_log(self, path: str) -> Answer | bytes:
        """Answer a request for a job's log, whole as Ray does."""
        self.asked.append(f"GET {path}")
        trouble = next(self.trouble, None)
        assert path.startswith("/api/v0/logs/file?")
        return self.log if trouble is None else trouble

    def describe(self, name: str) -> dict[str, Any]:
        states = self.jobs[name]
        status = states.pop(0) if len(states) > 1 else states[0]
        node = None if status == "PENDING" else NODE
        return {
            "type": "SUBMISSION",
            "submission_id": name,
            "status": status,
            "start_time": 1_000_000,
            "message": "",
            "driver_node_id": node,
        }


def _rows(row: dict[str, Any], *, of: int = 1) -> Answer:
    """The state API's answer to a question with ``limit=1``."""
    return Answer(200, json.dumps({"data": {"result": {"total": of, "num_filtered": of, "result": [row]}}}))


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> RayHead:
    """A head to be called, whose clock is the dialogues' clock."""
    head = RayHead()
    monkeypatch.setattr("strandloop.ray_dialogue.now", lambda: head.clock)
    monkeypatch.setattr("strandloop.ray_watch.now", lambda: head.clock)
    return head


@pytest.fixture(autouse=True)
def slurm_is_asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a cancelled job is gone."""
    monkeypatch.setattr("strandloop.slurm_waiting.GONE_PAUSE", 0.01)


@pytest.fixture
def served_head(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayHead]:
    """A head behind the connection ``ray``, which is asked again soon."""
    monkeypatch.setattr("strandloop.ray_dialogue.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("strandloop.ray_watch.FIRST_PAUSE", 0.05)
    head = RayHead()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            head.headers = dict(self.headers)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if "/logs/" in self.path:
                answer = head.read_log(self.path)
            else:
                is_json = self.headers.get("Content-Type") == "application/json"
                answer = head(Ask(self.command, self.path, json=json.loads(body) if is_json else None))  # type: ignore[arg-type]
            is_log = isinstance(answer, bytes)
            assert is_log or answer.status is not None
            self.send_response(200 if is_log else answer.status)
            self.send_header("Content-Type", "text/plain" if is_log else "application/json")
            content = answer if is_log else answer.text.encode()
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: head.log_breaks_at] if is_log else content)

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
