"""The fault matrix's world: a stack with Slurm, sshd and Ray, a whole Airflow, and faults in between.

Everything that concerns Slurm runs twice, without and with accounting. Where ``FAULTS_MINUTES`` is set, no
test begins after so many minutes, and the summary names those that were left out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.environment import read_environment
from infra.local.process_table import marked, process_table
from infra.local.processes import MARK
from infra.local.stack import Stack
from tests.faults.airflow_services import AirflowServices
from tests.faults.login_node import LoginNode
from tests.faults.matrix import Row, table, write
from tests.faults.proxy import Proxy
from tests.faults.ray_faults import RayFaults
from tests.faults.slurm_faults import SITE_CONF, SlurmFaults
from tests.faults.world import World

ROWS = pytest.StashKey[list[Row]]()
BEGAN = pytest.StashKey[float]()
LEFT_OUT = pytest.StashKey[list[str]]()
PARTS = ("shared", "slurm", "ssh")
SETTINGS = {"Slurm": PARTS, "Slurm + slurmdbd": ("accounting", *PARTS)}


@pytest.fixture(scope="session", params=SETTINGS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Slurm behind sshd, Airflow, and a place for faults between them; gone when the tests end."""
    state = tmp_path_factory.mktemp("faults")
    stack = Stack(state, free_ports=True, slurm_site_conf=SITE_CONF)
    proxies: list[Proxy] = []
    airflow = None
    try:
        stack.up(SETTINGS[request.param])
        login = LoginNode(stack, state / "login")
        login.start_sshd()
        ssh, dashboard = Proxy(stack.ports["ssh"]), Proxy(stack.ports["ray-dashboard"])
        proxies += [ssh, dashboard]
        environment = read_environment(stack.layout)
        connection = json.loads(environment["AIRFLOW_CONN_SLURM"])
        folder = stack.layout.shared / "faults"
        airflow = AirflowServices(
            state / "airflow",
            port=stack.ports["airflow"],
            processes=stack.processes,
            environment={
                **environment,
                "AIRFLOW_CONN_SLURM": json.dumps({**connection, "port": ssh.port}),
                "AIRFLOW_CONN_RAY": f"http://127.0.0.1:{dashboard.port}",
                "FAULT_JOB_ROOT": str(folder / "jobs"),
            },
        )
        airflow.up()
        rows = request.config.stash.setdefault(ROWS, [])
        slurm, ray = SlurmFaults(stack), RayFaults(stack)
        yield World(airflow, slurm, ray, login, ssh, dashboard, folder, request.param, rows)
    finally:
        if airflow is not None:
            airflow.down()
        stack.down()
        for proxy in proxies:
            proxy.close()
    assert not marked(f"{MARK}={stack.layout.runtime}/", process_table())


@pytest.fixture(autouse=True)
def no_fault_is_left(world: World) -> Iterator[None]:
    """What one test breaks is whole again for the next; every row that it put down must be right."""
    world.problems.clear()
    yield
    world.login.clear()
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
