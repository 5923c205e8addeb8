"""The fault matrix's world: a stack with Slurm, sshd and Ray, a whole Airflow, and faults in between.

Everything that concerns Slurm runs twice, without and with accounting. Where ``FAULTS_MINUTES`` is set, no
test begins after so many minutes, and the summary names those that were left out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.matrix import Row, table, write
from tests.faults.world import SETTINGS, World, running_world

ROWS = pytest.StashKey[list[Row]]()
BEGAN = pytest.StashKey[float]()
LEFT_OUT = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session", params=SETTINGS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Slurm behind sshd, Airflow, and a place for faults between them; gone when the tests end."""
    with running_world(tmp_path_factory.mktemp("faults"), request.param) as world:
        world.rows = request.config.stash.setdefault(ROWS, [])
        yield world


@pytest.fixture(autouse=True)
def no_fault_is_left(world: World) -> Iterator[None]:
    """What one test breaks is whole again for the next; every row that it put down must be right."""
    world.problems.clear()
    yield
    world.login.clear()
    world.slurm.mend()
    assert not world.problems, "\n\n".join(world.problems)


@pytest.hookimpl(tryfirst=True)  # before a stack is started for a test that is left out
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin no test of the matrix once its time is spent."""
    minutes = os.environ.get("FAULTS_MINUTES")
    if minutes is None or item.get_closest_marker("faults") is None:
        return
    began = item.config.stash.setdefault(BEGAN, time.monotonic())
    if time.monotonic() - began > 60 * float(minutes):
        item.config.stash.setdefault(LEFT_OUT, []).append(item.nodeid)
        pytest.skip(f"the {minutes} minutes for the fault matrix are spent (FAULTS_MINUTES)")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the matrix with its four counts, and what was left out."""
    if rows := config.stash.get(ROWS, None):
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(table(rows))
        write(rows, Path(config.rootpath) / ".local" / "faults" / "matrix.json")
    if left_out := config.stash.get(LEFT_OUT, None):
        terminalreporter.section("left out of the fault matrix; make faults runs all of it")
        for name in left_out:
            terminalreporter.write_line(name)
