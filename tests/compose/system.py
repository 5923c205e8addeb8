"""The system of docker-compose.yaml for tests: a project, ports and volumes of its own."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.compose.airflow_api import AirflowApi

PROJECT = Path(__file__).resolve().parents[2]
LOGS = PROJECT / ".local" / "tests" / "compose"
START_SECONDS = 900


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class System:
    """Containers that run, or will after :meth:`up`; commands fail with what they printed."""

    name: str = "strandloop-test"
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("AIRFLOW_PORT", "RAY_PORT", "S3_PORT")}
    )

    def up(self) -> None:
        self.compose("up", "--detach", timeout=START_SECONDS)

    def down(self) -> None:
        """Remove everything, stored data too; what the containers printed stays below .local/tests."""
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / "containers.log").write_text(self.compose("logs", "--no-color", "--timestamps"))
        self.compose("down", "--volumes", "--timeout", "2")

    def compose(self, *arguments: str, timeout: float = 120) -> str:
        return self._run([*_compose(), "--project-name", self.name, *arguments], timeout=timeout)

    def docker(self, *arguments: str, timeout: float = 120) -> str:
        return self._run([os.environ.get("DOCKER", "docker"), *arguments], timeout=timeout)

    def containers(self, service: str) -> list[str]:
        """Ids of a service's containers, running or not."""
        return self.docker(
            *("ps", "--all", "--no-trunc", "--format={{.ID}}"),
            *("--filter", f"label=com.docker.compose.project={self.name}"),
            *("--filter", f"label=com.docker.compose.service={service}"),
        ).split()

    def inside(self, service: str, *command: str) -> str:
        """What a command prints in the service's first container."""
        return self.docker("exec", self.containers(service)[0], *command)

    def health(self, container: str) -> str:
        return self.docker("inspect", "--format={{.State.Health.Status}}", container).strip()

    def airflow(self) -> AirflowApi:
        password = self.inside("airflow-apiserver", "cat", "/secrets/airflow/admin-password")
        return AirflowApi(f"http://127.0.0.1:{self.ports['AIRFLOW_PORT']}", user="admin", password=password)

    def json(self, service: str, path: str) -> Any:
        """A JSON file in a container."""
        return json.loads(self.inside(service, "cat", path))

    def _run(self, command: list[str], *, timeout: float) -> str:
        environment = {**os.environ, **{name: str(port) for name, port in self.ports.items()}}
        # Settings of whoever runs the tests are not the test's.
        for name in (*filter(lambda name: name.startswith("AWS_"), os.environ), "COMPOSE_PROFILES"):
            environment.pop(name, None)
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{shlex.join(command)} gave {done.returncode}:\n{done.stdout}"
        return done.stdout


def _compose() -> list[str]:
    return shlex.split(os.environ.get("COMPOSE", "docker compose"))
