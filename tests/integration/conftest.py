"""A local stack for the integration tests: its own state, its own ports, gone when the tests end."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infra.local.environment import read_environment
from infra.local.layout import PROJECT, Layout
from infra.local.process_table import marked, process_table
from infra.local.processes import MARK


@pytest.fixture(scope="session")
def stack_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of a running stack; fails the last test where ``down`` leaves a process behind."""
    state = tmp_path_factory.mktemp("stack")
    layout = Layout.of(state)
    try:
        _stack_command("up", "--free-ports", "--state", str(state))
        yield state
    finally:
        _stack_command("down", "--state", str(state))
    assert not marked(f"{MARK}={layout.runtime}/", process_table())
    assert not layout.runtime.exists()


@pytest.fixture(scope="session")
def stack(stack_state: Path) -> Iterator[Mapping[str, str]]:
    """The environment of the running stack, which is in ``os.environ`` as well until the tests end."""
    environment = read_environment(Layout.of(stack_state))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


@pytest.fixture(scope="session")
def airflow_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Airflow with its tables, for DAGs that have ids of their own; the tables take 6 s of a processor."""
    home = tmp_path_factory.mktemp("airflow")
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    environment = {**os.environ, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    subprocess.run(migrate, env=environment, check=True, capture_output=True, timeout=200)
    return home


@pytest.fixture(scope="session")
def ray_token() -> str:
    """For every Ray cluster of this process, which reads ``RAY_AUTH_TOKEN`` once; else Ray leaves one at home."""
    return uuid.uuid4().hex


def _stack_command(*arguments: str) -> None:
    """In a process of its own, so that the services are not children of the tests."""
    command = [sys.executable, "-m", "infra.local", *arguments]
    done = subprocess.run(
        command, cwd=PROJECT, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)
