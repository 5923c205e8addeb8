"""A Ray cluster of two nodes: a head with the dashboard and Jobs API, and one worker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from infra.local.part import Part, ask, service_environment
from infra.local.processes import ProcessEnded

NODES = 2
START_ATTEMPTS = 3
OBJECT_STORE_BYTES = 512 << 20


class RayCluster(Part):
    """Both nodes are seen alive by the dashboard when the part is well."""

    name: ClassVar = "ray"
    port_of: ClassVar = {
        "ray-head": ("ray", "ray-dashboard", "ray-client", "ray-head-agent"),
        "ray-worker": ("ray-worker-agent",),
    }
    patience_s: ClassVar = 120.0

    def missing(self) -> list[str]:
        """Ray's console script."""
        script = self.layout.python_bin / "ray"
        return [] if script.exists() else [str(script)]

    def start(self) -> None:
        """Start the head, wait for it, and start the worker."""
        if not self.processes.alive("ray-head"):
            self.tidy()
            self._start_node(
                "ray-head",
                self._dashboard_problem,
                "--head",
                f"--port={self.ports['ray']}",
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={self.ports['ray-dashboard']}",
                f"--ray-client-server-port={self.ports['ray-client']}",
                f"--dashboard-agent-listen-port={self.ports['ray-head-agent']}",
            )
        if not self.processes.alive("ray-worker"):
            self._start_node(
                "ray-worker",
                self.problem,
                f"--address=127.0.0.1:{self.ports['ray']}",
                f"--dashboard-agent-listen-port={self.ports['ray-worker-agent']}",
                # The machine's GPUs, if any, are offered once, by the head.
                "--num-gpus=0",
            )

    def problem(self) -> str | None:
        """The dashboard must answer and see both nodes alive."""
        status, answer = ask(f"{self.url}/nodes?view=summary")
        if status != 200:
            return f"the dashboard answers {status}"
        states = [node["raylet"].get("state") for node in answer["data"]["summary"]]
        alive = states.count("ALIVE")
        return None if alive == NODES else f"{alive} of {NODES} nodes alive"

    def describe(self) -> str:
        """The dashboard's address and the size of the cluster."""
        return f"{self.url} (dashboard and Jobs API), {NODES} nodes of {_logical_cpus()} CPUs"

    def down(self) -> list[str]:
        """A worker does not outlive its head: a new head is a new cluster."""
        return super().down() if self.processes.alive("ray-head") else list(self.port_of)

    def tidy(self) -> None:
        """Keep the logs of the last session below the state directory, and clear the socket directory."""
        for node in self.port_of:
            last = self._sessions(node) / "session_latest" / "logs"
            if last.exists():
                kept = self.layout.logs / f"{node}-last-session"
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(last.resolve(), kept, symlinks=True)
            shutil.rmtree(self._sessions(node), ignore_errors=True)

    @property
    def url(self) -> str:
        """The address of the dashboard and of the Jobs API."""
        return f"http://127.0.0.1:{self.ports['ray-dashboard']}"

    def _dashboard_problem(self) -> str | None:
        status, _ = ask(f"{self.url}/api/version")
        return None if status == 200 else f"the dashboard answers {status}"

    def _start_node(self, name: str, probe: Callable[[], str | None], *arguments: str) -> None:
        """Start a node and wait until ``probe`` is content.

        Ray gives a node 30 s to register, fixed in its source, which a very busy machine can exceed.
        """
        command = [
            str(self.layout.python_bin / "python"),
            str(Path(__file__).with_name("ray_node.py")),
            "start",
            "--block",
            "--disable-usage-stats",
            "--node-ip-address=127.0.0.1",
            # One for each node, as on two machines: a node that unpacks a job's code replaces what is there,
            # also below the feet of a process of the other node that works in it.
            f"--temp-dir={self._sessions(name)}",
            f"--num-cpus={_logical_cpus()}",
            f"--object-store-memory={OBJECT_STORE_BYTES}",
            # Zero: any free port, instead of a range that other programs may use.
            "--min-worker-port=0",
            "--max-worker-port=0",
            "--log-style=record",
            "--log-color=false",
        ]
        settings = {
            # Loopback is the guard here. Ray would ask for tokens as soon as ~/.ray/auth_token exists, which
            # any ray.init() creates.
            "RAY_AUTH_MODE": "disabled",
            # A small /dev/shm (containers have 64 MiB) makes the object store slower; no reason to stop.
            "RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE": "1",
            # Else every worker warns of what a coming release will do with machines that have no GPU.
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            # A thread that waits for another must not spin: with more threads than cores training is 4 x slower.
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        env = service_environment(self.layout, self.ports) | settings
        for attempts_left in reversed(range(START_ATTEMPTS)):
            self.processes.start(name, [*command, *arguments], env=env)
            try:
                self.processes.wait_until(probe, what=name, watch=(name,), timeout_s=self.patience_s)
                return
            except ProcessEnded:
                if not attempts_left:
                    raise
                print(f"{self.name:<7} {name} gave up while it started; once more", flush=True)
                self.processes.end(name)

    def _sessions(self, node: str) -> Path:
        return self.layout.runtime / ("ray" if node == "ray-head" else "ray2")


def _logical_cpus() -> int:
    """At least two, so that a small machine can hold a job's driver and its actors."""
    return max(2, os.cpu_count() or 1)
