"""The whole local stack: which parts there are, and how they come up, are asked, and go down."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.local.accounting import Accounting
from infra.local.environment import stack_environment, write_environment
from infra.local.layout import DEFAULT_STATE, Layout, StackError
from infra.local.moto_server import MotoServer
from infra.local.part import Part
from infra.local.ports import Ports
from infra.local.processes import Processes
from infra.local.ray_cluster import RayCluster
from infra.local.s3 import S3Server
from infra.local.shared_files import SharedFiles
from infra.local.slurm import SlurmCluster
from infra.local.ssh import SshServer

DEFAULT_PARTS = ("shared", "s3", "slurm", "ssh", "ray")
# Started when asked for, and from then on until the stack goes down.
EXTRA_PARTS = ("accounting", "moto")


@dataclass(frozen=True)
class PartStatus:
    """One line of ``status``; ``problem`` is None where all is well."""

    name: str
    problem: str | None
    description: str


class Stack:
    """The parts that belong to one state directory."""

    def __init__(
        self,
        state: Path = DEFAULT_STATE,
        *,
        port_options: Iterable[str] = (),
        free_ports: bool = False,
        slurm_site_conf: str = "",
    ) -> None:
        """:param slurm_site_conf: lines for slurm.conf; a setting in them wins over the stack's own."""
        self.layout = Layout.of(state)
        self._ports_file = self.layout.state / "ports.json"
        self.ports = Ports.choose(self._ports_file, options=port_options, free=free_ports)
        self.processes = Processes(
            records=self.layout.records, logs=self.layout.logs, mark=str(self.layout.runtime)
        )
        belongings = (self.layout, self.ports, self.processes)
        self.shared = SharedFiles(*belongings)
        self.s3 = S3Server(*belongings)
        self.accounting = Accounting(*belongings)
        self.slurm = SlurmCluster(*belongings, site_conf=slurm_site_conf)
        self.ssh = SshServer(*belongings)
        self.ray = RayCluster(*belongings)
        self.moto = MotoServer(*belongings)

    def up(self, names: Collection[str] = DEFAULT_PARTS) -> None:
        """Start what is not healthy, wait until it is, and write the environment file.

        :param names: the parts to start; :data:`EXTRA_PARTS` that were started before are seen to as well.
        """
        parts = self._parts(names)
        _check_programs(parts)
        self.layout.make_directories()
        with self._alone():
            self._check_ports(parts)
            self.ports.save(self._ports_file)
            for part in parts:
                part.bring_up()
        self.ssh.make_keys()  # the environment names the host's key, whether sshd is wanted or not
        values = stack_environment(ray=self.ray, ssh=self.ssh, slurm=self.slurm)
        if self.moto in parts:
            values["STRANDLOOP_MOTO_ENDPOINT"] = self.moto.url
        write_environment(self.layout, values)

    def status(self) -> list[PartStatus]:
        """What each part says when asked."""
        return [PartStatus(part.name, part.trouble(), part.describe()) for part in self._parts(DEFAULT_PARTS)]

    def down(self) -> int:
        """End the stack's jobs and processes; gives the number of processes. What was stored stays."""
        if not self.layout.state.exists():
            return 0
        parts = self._parts(DEFAULT_PARTS)
        with self._alone():
            for part in parts:
                try:
                    part.drain()
                except StackError as error:
                    print(f"{part.name}: {error}\n{part.name}: going down all the same")
            ended = self.processes.end()
            for part in parts:
                part.tidy()
            shutil.rmtree(self.layout.runtime, ignore_errors=True)
            self.layout.environment_file.unlink(missing_ok=True)
        return ended

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second ``up`` or ``down`` of the same stack out."""
        with (self.layout.state / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"another `up` or `down` is at work on {self.layout.state}") from None
            yield

    def _parts(self, names: Collection[str]) -> list[Part]:
        """The named parts and the extra ones that were started before, in the order in which they start."""
        known = [self.shared, self.s3, self.accounting, self.slurm, self.ssh, self.ray, self.moto]
        if unknown := set(names) - {part.name for part in known}:
            raise StackError(f"the parts are {', '.join(part.name for part in known)}, not {min(unknown)}")
        extra = {part.name for part in known if part.name in EXTRA_PARTS and part.was_started()}
        return [part for part in known if part.name in extra.union(names)]

    def _check_ports(self, parts: list[Part]) -> None:
        """Every port must be free, or held by the part it belongs to."""
        running = [name for part in parts for name in part.port_of if self.processes.alive(name)]
        if running and Ports.choose(self._ports_file) != self.ports:
            raise StackError("the stack runs on other ports; take it down before you change them: make down")
        for part in parts:
            part.sweep()
        needed = [port for part in parts for name in part.down() for port in part.port_of[name]]
        if taken := self.ports.taken(needed):
            raise StackError(
                "\n".join([*taken, "`up --free-ports` takes free ones (make up UP=--free-ports)"])
            )


def _check_programs(parts: list[Part]) -> None:
    missing = [f"{part.name}: {what} not found" for part in parts for what in part.missing()]
    if missing:
        raise StackError("\n".join([*missing, "run `make setup` first: it installs what is missing"]))
