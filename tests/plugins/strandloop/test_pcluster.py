"""The process boundary to ParallelCluster, with small programs in the place of the other side."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from textwrap import dedent

import pytest

from strandloop import pcluster
from strandloop.errors import InvalidJob, RemoteJobError
from strandloop.pcluster import (
    ERRORS,
    PYTHON_VARIABLE,
    BadConfiguration,
    Pcluster,
    PclusterUnavailable,
)
from strandloop.pcluster_program import kind, readable


@pytest.fixture
def other_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of the program that will run."""
    program = tmp_path / "program.py"
    monkeypatch.setattr(pcluster, "PROGRAM", program)
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    return program


def _says(program: Path, text: str) -> Pcluster:
    program.write_text(dedent(text))
    return Pcluster(region="eu-west-1", environment={"AWS_ACCESS_KEY_ID": "connection's"})


def test_request_and_result_cross_as_json(other_side: Path) -> None:
    echo = _says(other_side, "import json, sys; json.dump({'result': json.load(sys.stdin)}, sys.stdout)")
    assert echo.call("describe_cluster", cluster_name="a") == {
        "operation": "describe_cluster",
        "arguments": {"region": "eu-west-1", "cluster_name": "a"},
    }


def test_no_secret_of_airflow_reaches_the_process(other_side: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SECRET", "airflow's")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "worker's")
    seen = _says(
        other_side, "import json, os, sys; json.dump({'result': dict(os.environ)}, sys.stdout)"
    ).call("x")
    assert seen["AWS_ACCESS_KEY_ID"] == "connection's"
    assert seen["AWS_DEFAULT_REGION"] == "eu-west-1"
    assert not {"AIRFLOW_CONN_SECRET", "AWS_SECRET_ACCESS_KEY"} & seen.keys()
    assert seen["PATH"].startswith(str(Path(sys.executable).parent))  # Node.js may be there


@pytest.mark.parametrize("name", ERRORS)
def test_every_kind_of_error_has_a_class(other_side: Path, name: str) -> None:
    error = {"kind": name, "message": "no", "validation": []}
    refusing = _says(other_side, f"import json, sys; json.dump({{'error': {error!r}}}, sys.stdout)")
    with pytest.raises(RemoteJobError) as raised:
        refusing.call("create_cluster")
    assert type(raised.value) is ERRORS[name]
    assert isinstance(raised.value, InvalidJob) == (name == "bad_configuration")
    assert str(raised.value) == "pcluster create-cluster: no"


def test_a_refused_configuration_names_all_findings_errors_first() -> None:
    findings = [
        {"level": "INFO", "type": "A", "message": "by the way"},
        {"level": "WARNING", "type": "B", "message": "slow"},
        {"level": "ERROR", "type": "C", "message": "two\n  lines"},
    ]
    error = BadConfiguration("create_cluster", "Invalid.", findings)
    assert error.validation == findings
    assert str(error).splitlines() == [
        "pcluster create-cluster: Invalid.",
        "  - ERROR: two lines (C)",
        "  - WARNING: slow (B)",
    ]


def test_a_process_that_dies_is_told_with_its_last_words(other_side: Path) -> None:
    with pytest.raises(PclusterUnavailable, match=r"exit status 3 .*\n  \| no module") as raised:
        _says(other_side, "import sys; print('no module', file=sys.stderr); sys.exit(3)").call("x")
    assert raised.value.__cause__ is not None


def test_a_process_that_hangs_is_ended_with_its_children(other_side: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pid"
    hanging = _says(
        other_side,
        f"""
        import pathlib, subprocess, sys, time
        child = subprocess.Popen(["sleep", "600"])
        pathlib.Path({str(pipe)!r}).write_text(str(child.pid))
        time.sleep(600)
        """,
    )
    with pytest.raises(PclusterUnavailable, match=r"did not end within 2 s"):
        hanging.call("create_cluster", timeout_seconds=2)
    deadline = time.monotonic() + 60
    while _runs(pipe.read_text()):
        assert time.monotonic() < deadline, "its child goes on"
        time.sleep(0.02)


def _runs(pid: str) -> bool:
    """Whether a process is more than a name that init has not taken note of yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_missing_environment_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    monkeypatch.setenv("AIRFLOW_HOME", "/nowhere")
    with pytest.raises(PclusterUnavailable, match=r"/nowhere/pcluster/bin/python.*\$" + PYTHON_VARIABLE):
        Pcluster(region="us-east-1").call("list_clusters")


class _Answer(Exception):
    """As botocore's ClientError, and ParallelCluster's errors, tell what it is."""

    def __init__(self, aws: str | None = None, status: int | None = None) -> None:
        super().__init__()
        self.error_code, self.code = aws, status


@pytest.mark.parametrize(
    ("aws", "status", "expected"),
    [
        ("RequestLimitExceeded", 429, "throttled"),
        ("ExpiredToken", 500, "credentials"),
        ("UnauthorizedOperation", 500, "credentials"),
        ("LimitExceededException", 500, "limit"),
        (None, 400, "bad_configuration"),
        (None, 404, "not_found"),
        (None, 409, "conflict"),
        ("InternalFailure", 500, "other"),
    ],
)
def test_errors_are_told_apart_by_aws_code_then_by_status(
    aws: str | None, status: int, expected: str
) -> None:
    error = _Answer(status=status)
    error.__cause__ = _Answer(aws)
    assert kind(error, "some words") == expected


def test_some_errors_are_told_apart_by_their_words_only() -> None:
    assert kind(_Answer(status=400), "Bad Request: Cluster x already exists.") == "conflict"
    assert kind(_Answer(), "Bad Request: 'a' does not match") == "bad_configuration"
    assert kind(_Answer(status=500), "Unable to locate credentials") == "credentials"


def test_schema_errors_are_put_into_words() -> None:
    assert readable("[('Image', {'Os': ['Missing data.', 'Wrong.']}), ('Tags', ['No.'])]") == (
        "Image.Os: Missing data. Wrong.; Tags: No."
    )
    assert readable("[an ordinary] message") == "[an ordinary] message"
