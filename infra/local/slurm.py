"""A Slurm cluster of two nodes on this machine, from Debian's packages, with accounting or without."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from infra.local.layout import current_user
from infra.local.memory_cgroup import MemoryCgroup
from infra.local.part import SYSTEM_PATH, Part, call, program, required_program
from infra.local.slurm_conf import (
    CLUSTER_NAME,
    NODES,
    cpus_per_node,
    munge_socket,
    saved_state,
    slurm_conf,
    slurm_directory,
    spool,
)

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("munge", "sbatch", "squeue", "sinfo", "scontrol", "scancel", "mpirun")


@dataclass(frozen=True)
class SlurmCluster(Part):
    """munged, slurmctld and one slurmd a node, all run by the user who started the stack.

    It keeps accounts in the stack's slurmdbd if that was started before it.
    """

    site_conf: str = ""
    """More lines for slurm.conf; a setting in them wins over the one here."""

    name: ClassVar = "slurm"
    port_of: ClassVar = {
        "munged": (),
        "slurmctld": ("slurmctld",),
        **{f"slurmd-{node}": (f"slurmd-{node}",) for node in NODES},
    }
    patience_s: ClassVar = 60.0

    def missing(self) -> list[str]:
        """Slurm's, MUNGE's and Open MPI's programs."""
        return [name for name in DAEMONS + COMMANDS if program(name) is None]

    def start(self) -> None:
        """Write slurm.conf and start the daemons that do not run; jobs live on where it has changed."""
        if not self._is_configured():
            self.processes.end("slurmctld")
            for node in NODES:
                self.processes.kill(f"slurmd-{node}")
        self._write_configuration()
        down = self.down()
        env = self._environment()
        if "munged" in down:
            self._munge_key()
            self._socket.unlink(missing_ok=True)
            self.processes.start("munged", self._munged_command(), env=env)
            self.processes.wait_until(
                self._munge_silence, what="munged", watch=("munged",), timeout_s=self.patience_s
            )
        config = str(self.config)
        if "slurmctld" in down:
            self.processes.start("slurmctld", [required_program("slurmctld"), "-D", "-f", config], env=env)
        for node in NODES:
            if f"slurmd-{node}" in down:
                command = [required_program("slurmd"), "-D", "-N", node, "-f", config]
                self.processes.start(f"slurmd-{node}", command, env=env)

    def problem(self) -> str | None:
        """sinfo must show both nodes ready for work, and accounting, if any, must know the cluster."""
        answer = self.run("sinfo", "--noheader", "--Node", "--format=%N %T")
        if answer.returncode != 0:
            return f"sinfo: {answer.stderr.strip() or 'no answer'}"
        states = dict(line.split() for line in answer.stdout.splitlines())
        # A node that works or winds up a job is well; a suffix such as * means that it does not respond.
        well = {"idle", "mixed", "allocated", "completing"}
        ill = [f"{node} is {states.get(node, 'unknown')}" for node in NODES if states.get(node) not in well]
        if ill:
            return ", ".join(ill)
        return self._unregistered() if self._has_accounting() else None

    def settled(self) -> bool:
        """Whether all is well with the configuration that :meth:`start` would write."""
        return self._is_configured() and super().settled()

    def describe(self) -> str:
        """The nodes and the configuration."""
        accounting = "with" if self._has_accounting() else "without"
        nodes = f"nodes {', '.join(NODES)} of {cpus_per_node()} CPUs"
        return f"{nodes}, {accounting} accounting, SLURM_CONF={self.config}"

    def sweep(self) -> None:
        """Leave job steps alone: they outlive their slurmd, and the next one finds them again."""
        return

    def drain(self) -> None:
        """Cancel all jobs, so that the next start does not find them half done."""
        if "slurmctld" in self.down():
            return
        self.run("scancel", "--user", current_user())
        self.processes.wait_until(
            self._jobs_left, what="cancelling Slurm jobs", watch=("slurmctld",), timeout_s=30.0
        )

    def tidy(self) -> None:
        """Remove the control group that confined the jobs."""
        self._cgroup.remove()

    def wipe(self) -> None:
        """Take the controller's memory, as when its machine is built anew: it counts jobs from 1 again."""
        self.processes.end("slurmctld")
        shutil.rmtree(saved_state(self.layout))
        self.bring_up()

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands against this cluster."""
        return call([required_program(name), *arguments], env=self._environment())

    @property
    def config(self) -> Path:
        """The generated slurm.conf."""
        return self._directory / "slurm.conf"

    def _has_accounting(self) -> bool:
        return self.processes.record("slurmdbd") is not None

    def _unregistered(self) -> str | None:
        """None once slurmdbd knows where the controller is, which it tells for as long as that is up."""
        fields = ["format=controlhost,controlport"]
        answer = self.run("sacctmgr", "--noheader", "--parsable2", "list", "cluster", CLUSTER_NAME, *fields)
        if answer.returncode != 0:
            return f"sacctmgr: {answer.stderr.strip() or 'no answer'}"
        if answer.stdout.strip() != f"127.0.0.1|{self.ports['slurmctld']}":
            return "slurmctld has not registered with slurmdbd"
        return None

    def _jobs_left(self) -> str | None:
        answer = self.run("squeue", "--noheader", "--format=%i")
        return answer.stderr.strip() or answer.stdout.strip() or None

    def _munge_silence(self) -> str | None:
        answer = self.run("munge", "--no-input", f"--socket={self._socket}")
        return None if answer.returncode == 0 else answer.stderr.strip() or "no credential"

    def _munged_command(self) -> list[str]:
        return [
            required_program("munged"),
            "--foreground",
            # Else munged wants every parent directory closed to the group and the socket open to all users;
            # here one user owns both ends, and the key and the socket's directory are closed to others.
            "--force",
            f"--key-file={self._directory / 'munge.key'}",
            f"--socket={self._socket}",
            f"--pid-file={self.layout.runtime / 'munged.pid'}",
            f"--seed-file={self._directory / 'munge.seed'}",
        ]

    def _munge_key(self) -> None:
        key = self._directory / "munge.key"
        if not key.exists():
            with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
                target.write(secrets.token_bytes(128))

    def _write_configuration(self) -> None:
        spools = [spool(self.layout, node) for node in NODES]
        for directory in (self._directory, saved_state(self.layout), *spools):
            directory.mkdir(mode=0o755, exist_ok=True)
        self.config.write_text(self._configuration())
        if self._cgroup.available():
            self._confine()

    def _is_configured(self) -> bool:
        return self.config.exists() and self.config.read_text() == self._configuration()

    def _configuration(self) -> str:
        return slurm_conf(
            self.layout,
            self.ports,
            with_accounting=self._has_accounting(),
            with_memory_cgroup=self._cgroup.available(),
            site=self.site_conf,
        )

    def _confine(self) -> None:
        """Give Slurm a control group to confine jobs in."""
        self._cgroup.make()
        (self._directory / "cgroup.conf").write_text(
            "# Written by `python -m infra.local up`.\n"
            "CgroupPlugin=cgroup/v1\n"
            f"CgroupMountpoint={self._cgroup.mount_point}\n"
            "ConstrainRAMSpace=yes\n"
            "# A job that is over its memory ends, and does not swap.\n"
            "ConstrainSwapSpace=yes\n"
        )

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("HOME", "LANG", "USER", "TZ") if name in os.environ}
        return {**kept, "PATH": SYSTEM_PATH, "SLURM_CONF": str(self.config)}

    @property
    def _cgroup(self) -> MemoryCgroup:
        return MemoryCgroup(self.layout)

    @property
    def _socket(self) -> Path:
        return munge_socket(self.layout)

    @property
    def _directory(self) -> Path:
        return slurm_directory(self.layout)
