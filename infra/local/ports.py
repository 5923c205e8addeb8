"""The stack's ports on 127.0.0.1: defaults, choices, and what to do when one is taken."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.local.layout import StackError

# Below 32768, where Linux starts to hand out ports to outgoing connections.
DEFAULT_PORTS = {
    "s3": 26000,
    "ssh": 26001,
    "moto": 26002,
    "ray": 26010,
    "ray-dashboard": 26011,
    "ray-client": 26012,
    "ray-head-agent": 26013,
    "ray-worker-agent": 26014,
    "slurmctld": 26020,
    "slurmd-n1": 26021,
    "slurmd-n2": 26022,
    "slurmdbd": 26023,
    "airflow": 26030,
}


@dataclass(frozen=True)
class Ports:
    """A port for each name of :data:`DEFAULT_PORTS`."""

    numbers: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.numbers[name]

    @classmethod
    def choose(cls, recorded: Path, *, options: Iterable[str] = (), free: bool = False) -> Ports:
        """An option wins over ``STRANDLOOP_PORT_*``, that over the last run's choice, that over the default.

        :param recorded: the file :meth:`save` wrote, if any.
        :param options: ``NAME=NUMBER`` texts.
        :param free: take whatever is free, instead of the default, for ports that were never chosen.
        """
        numbers = dict(DEFAULT_PORTS)
        if recorded.exists():
            numbers |= json.loads(recorded.read_text())
        elif free:
            numbers = _free_ports(DEFAULT_PORTS)
        for name in DEFAULT_PORTS:
            if (text := os.environ.get(variable(name))) is not None:
                numbers[name] = _number(text, source=variable(name))
        for option in options:
            name, _, text = option.partition("=")
            if name not in DEFAULT_PORTS:
                raise StackError(f"--port {option}: the ports are {', '.join(DEFAULT_PORTS)}")
            numbers[name] = _number(text, source=f"--port {option}")
        return cls(numbers)

    def save(self, path: Path) -> None:
        """Keep the choice for ``status``, ``down`` and the next ``up``."""
        path.write_text(json.dumps(dict(self.numbers), indent=2) + "\n")

    def taken(self, names: Iterable[str]) -> list[str]:
        """One readable line for each named port that another process listens on."""
        return [
            f"port {self[name]} ({name}) is taken by another process; choose another with "
            f"{variable(name)}=NUMBER or `up --port {name}=NUMBER`"
            for name in names
            if not _is_free(self[name])
        ]


def variable(name: str) -> str:
    """The environment variable that sets a port."""
    return f"STRANDLOOP_PORT_{name.upper().replace('-', '_')}"


def _number(text: str, *, source: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise StackError(f"{source}: a port is a number from 1024 to 65535, not {text!r}")
    return int(text)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do, so that connections of a server that just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(names: Iterable[str]) -> dict[str, int]:
    """A free port for each name; all are held open until the last is found, so that none comes twice."""
    probes = {name: socket.socket() for name in names}
    try:
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in probes.items()}
    finally:
        for probe in probes.values():
            probe.close()
