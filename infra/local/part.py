"""The shape that every part of the stack has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from infra.local.layout import Layout, StackError
from infra.local.ports import Ports
from infra.local.processes import Processes

REGION = "us-east-1"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# Of the caller's environment these must not reach the services: credentials and settings of real accounts,
# the caller's virtual environment, and PYTHONPATH, since code arrives as a Ray working directory.
KEPT_OUT = ("AWS_", "AIRFLOW", "PYTHON", "RAY_ADDRESS", "RAY_JOB", "SLURM", "SBATCH", "OMPI_", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Part(ABC):
    """One service of the stack: it starts what is not running, and tells whether all of it answers."""

    layout: Layout
    ports: Ports
    processes: Processes

    name: ClassVar[str]
    port_of: ClassVar[Mapping[str, tuple[str, ...]]]
    """The ports that each of the part's processes listens on."""
    patience_s: ClassVar[float] = 30.0

    @abstractmethod
    def missing(self) -> list[str]:
        """What has to be installed first: names of programs or paths."""

    @abstractmethod
    def start(self) -> None:
        """Start the processes that do not run; :meth:`problem` tells when they are ready."""

    @abstractmethod
    def problem(self) -> str | None:
        """None when the part answers as it should, else what is wrong; OSError where nothing answers."""

    def trouble(self) -> str | None:
        """:meth:`problem`, with silence and ended processes as problems too."""
        if down := self.down():
            return f"not running: {', '.join(down)}"
        try:
            return self.problem()
        except OSError as error:
            return f"no answer: {error}"

    def settled(self) -> bool:
        """Whether :meth:`bring_up` has nothing to do here."""
        return self.trouble() is None

    def bring_up(self) -> None:
        """Start what does not run, and wait until the whole part answers; says so in a line."""
        started = time.monotonic()
        if self.settled():
            print(f"{self.name:<10} was up      {self.describe()}", flush=True)
            return
        self.start()
        self.processes.wait_until(
            self.problem, what=self.name, watch=tuple(self.port_of), timeout_s=self.patience_s
        )
        seconds = time.monotonic() - started
        print(f"{self.name:<10} up in {seconds:4.1f} s {self.describe()}", flush=True)

    @abstractmethod
    def describe(self) -> str:
        """Where the part is found."""

    def sweep(self) -> None:
        """End what is left of processes that died, before they are started again."""
        for name in self.down():
            self.processes.end(name)

    def drain(self) -> None:
        """End the work inside the part before its processes end."""
        return

    def tidy(self) -> None:
        """Put away what is worth keeping of the runtime directory, after the processes have ended."""
        return

    def was_started(self) -> bool:
        """Whether one of its processes was started since the stack last went down."""
        return any(self.processes.record(name) is not None for name in self.port_of)

    def down(self) -> list[str]:
        """The part's processes that do not run."""
        return [name for name in self.port_of if not self.processes.alive(name)]


def service_environment(layout: Layout, ports: Ports) -> dict[str, str]:
    """The environment of the stack's services: the caller's, cleaned, with the local S3 server in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(KEPT_OUT)}
    path = f"{layout.python_bin}:{SYSTEM_PATH}"
    return {**kept, **aws_environment(ports), "PATH": path, "PYTHONUNBUFFERED": "1"}


def aws_environment(ports: Ports) -> dict[str, str]:
    """What points boto3 and pyarrow at the local S3 server, which asks for no real credentials."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def program(name: str) -> str | None:
    """The path of a system program; daemons live in /usr/sbin, which an ordinary user's PATH leaves out."""
    return shutil.which(name, path=SYSTEM_PATH)


def required_program(name: str) -> str:
    """The path of a system program that :meth:`Part.missing` has looked for."""
    found = program(name)
    if found is None:
        raise StackError(f"{name} not found: run `make setup`")
    return found


def call(
    command: list[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 20.0
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it prints; exit status 124 where it takes too long."""
    try:
        return subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no answer within {timeout_s:.0f} s")


def ask(url: str, *, method: str = "GET", timeout_s: float = 5.0) -> tuple[int, Any]:
    """Status and parsed JSON body (None where it is not JSON) of a request to a loopback service.

    Raises OSError where nothing answers.
    """
    request = urllib.request.Request(url, method=method)
    # Without proxies: a proxy of the user's environment cannot reach this machine's loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            status, body = answer.status, answer.read()
    except urllib.request.HTTPError as error:
        with error:
            status, body = error.code, error.read()
    try:
        return status, json.loads(body)
    except ValueError:
        return status, None
