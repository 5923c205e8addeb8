from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Connection

from strandloop.errors import InvalidJob, StateUnknown
from strandloop.hooks.ray_jobs import RayJobHook, dashboard_of
from strandloop.ray_dialogue import Answer, Fetch, find, submit
from strandloop.ray_watch import watch


def connection(**fields: Any) -> Connection:
    return Connection(conn_id="ray", conn_type="http", **fields)


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({"host": "head", "port": 8265}, "http://head:8265"),
        ({"host": "head", "port": 8265, "schema": "https"}, "https://head:8265"),
        ({"host": "https://ray.example.org/", "port": None}, "https://ray.example.org"),
    ],
)
def test_the_address_comes_from_the_connection(fields: dict[str, Any], url: str) -> None:
    assert dashboard_of(connection(**fields), {}).url == url
    assert dashboard_of(connection(**fields), {}).job_page("job-1") == f"{url}/#/jobs/job-1"


def test_a_token_or_login_and_password_authorise() -> None:
    open_one, with_login = connection(host="head"), connection(host="head", login="ray", password="s:cret")
    assert dashboard_of(open_one, {}).headers == {}
    assert dashboard_of(open_one, {"token": "t0ken"}).headers == {"Authorization": "Bearer t0ken"}
    assert dashboard_of(with_login, {}).headers == {"Authorization": "Basic cmF5OnM6Y3JldA=="}
    assert "t0ken" not in repr(dashboard_of(open_one, {"token": "t0ken"}))


def test_tls_is_verified_unless_the_connection_says_otherwise() -> None:
    secure = connection(host="head", schema="https")
    verified, unverified = dashboard_of(secure, {}).tls, dashboard_of(secure, {"verify": False}).tls
    assert verified is not None
    assert unverified is not None
    assert (verified.verify_mode, verified.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)
    assert dashboard_of(connection(host="head"), {}).tls is None


@pytest.mark.parametrize(
    ("fields", "extra", "said"),
    [
        ({"port": 8265}, {}, "names no host"),
        ({"host": "head", "schema": "ray"}, {}, "schema is 'ray'"),
        ({"host": "https://head"}, {"verify": "/no/such/file.pem"}, "TLS files"),
        ({"host": "https://head"}, {"cert": ["/no/such.pem", "/no/such.key"]}, "TLS files"),
    ],
)
def test_a_connection_that_cannot_work_is_named(fields: dict, extra: dict, said: str) -> None:
    with pytest.raises(InvalidJob, match=rf"connection 'ray'.*{said}"):
        dashboard_of(connection(**fields), extra)


def test_both_clients_play_the_same_dialogue(served_head: Any) -> None:
    hook = RayJobHook()
    served_head.log = b"one\ntwo\n"
    assert hook.play(submit({"submission_id": "job-1", "entrypoint": "true"}, patience=5)).status == "PENDING"
    assert hook.play(watch("job-1", poll=0.01, patience=5)).job.succeeded

    served_head.jobs["job-1"] = ["RUNNING", "SUCCEEDED"]
    outcome = asyncio.run(RayJobHook().aplay(watch("job-1", poll=0.01, patience=5)))
    assert outcome.job.succeeded
    assert outcome.last_lines == ("one", "two")


def test_the_token_of_the_connection_is_sent(served_head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = RayJobHook().dashboard().url
    monkeypatch.setenv(
        "AIRFLOW_CONN_RAY", json.dumps({"conn_type": "http", "host": host, "extra": {"token": "t0ken"}})
    )
    RayJobHook().play(find("job-1", patience=5))
    assert served_head.headers["Authorization"] == "Bearer t0ken"
    served_head.headers.clear()
    asyncio.run(RayJobHook().aplay(find("job-1", patience=5)))
    assert served_head.headers["Authorization"] == "Bearer t0ken"


def test_a_server_error_is_asked_again(served_head: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strandloop.ray_dialogue.FIRST_PAUSE", 0.01)
    served_head.jobs["job-1"] = ["RUNNING"]
    served_head.trouble = iter([Answer(500, "Traceback"), Answer(503, "not yet")])
    job = RayJobHook().play(find("job-1", patience=5))
    assert job is not None
    assert job.status == "RUNNING"
    assert len(served_head.asked) == 3


def fetch(way: str, taken: list[bytes]) -> Answer:
    """Fetch a log by one of the two clients, and return how that ended."""

    def dialogue() -> Any:
        return (yield Fetch("/api/v0/logs/file?node_id=n", lambda piece: taken.append(piece) or []))

    hook = RayJobHook()
    answer: Answer = hook.play(dialogue()) if way == "play" else asyncio.run(hook.aplay(dialogue()))
    return answer


@pytest.mark.parametrize("way", ["play", "aplay"])
def test_a_log_is_read_piece_by_piece_as_it_is(served_head: Any, way: str) -> None:
    served_head.log = bytes(range(256)) * 1_000
    taken: list[bytes] = []
    assert fetch(way, taken) == Answer(200, "")
    assert b"".join(taken) == served_head.log
    assert max(map(len, taken)) == 16_384


@pytest.mark.parametrize("way", ["play", "aplay"])
def test_a_log_that_breaks_off_is_not_whole(served_head: Any, way: str) -> None:
    served_head.log, served_head.log_breaks_at = b"x" * 100_000, 50_000
    taken: list[bytes] = []
    assert fetch(way, taken).status is None
    assert 0 < len(b"".join(taken)) <= 50_000


@pytest.mark.parametrize("way", ["play", "aplay"])
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (Answer(500, "A file is not found"), "HTTP 500: A file is not found"),
        (Answer(200, "<html>please log in</html>"), "not a plain text but application/json: <html>please"),
    ],
)
def test_what_is_no_log_is_not_taken_for_one(served_head: Any, way: str, trouble: Answer, said: str) -> None:
    served_head.trouble = iter([trouble])
    taken: list[bytes] = []
    assert said in str(fetch(way, taken))
    assert taken == []


@pytest.mark.parametrize("way", ["play", "aplay"])
def test_a_dashboard_that_is_not_there_is_unknown(
    way: str, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RAY", f"http://127.0.0.1:{unused_port}")
    played = getattr(RayJobHook(), way)
    with pytest.raises(StateUnknown, match="ConnectError"):
        if way == "play":
            played(find("job-1", patience=0.1))
        else:
            asyncio.run(played(find("job-1", patience=0.1)))


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_the_plugins_know_no_ray() -> None:
    plugins = Path(__file__).parents[4] / "plugins" / "strandloop"
    ours = [*plugins.glob("ray_*.py"), *plugins.glob("*/ray_jobs.py")]
    assert len(ours) == 12
    assert not [path for path in ours if "import ray" in path.read_text()]
