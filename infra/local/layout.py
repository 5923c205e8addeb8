"""Where the local stack keeps its things.

Everything lives below the state directory, except sockets: a Unix socket's path may hold 107 bytes, and
Ray and Slurm append long names of their own, so those go to a short directory below /tmp.
"""

from __future__ import annotations

import hashlib
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_STATE = PROJECT / ".local"


class StackError(Exception):
    """The local stack cannot do what was asked; the message says what to change."""


@dataclass(frozen=True)
class Layout:
    """The paths of one stack. Two stacks with different state directories share nothing but programs."""

    state: Path
    project: Path = PROJECT

    @classmethod
    def of(cls, state: Path) -> Layout:
        """The layout below ``state``, which need not exist yet."""
        return cls(state.resolve())

    @property
    def logs(self) -> Path:
        """What every process of the stack prints, one file each."""
        return self.state / "logs"

    @property
    def records(self) -> Path:
        """One JSON file for each process that was started."""
        return self.state / "run"

    @property
    def runtime(self) -> Path:
        """The short directory of sockets, named after the user and the state directory."""
        identity = hashlib.sha256(f"{os.getuid()}:{self.state}".encode()).hexdigest()[:10]
        return Path("/tmp") / f"strandloop-{identity}"

    @property
    def environment_file(self) -> Path:
        """KEY=VALUE lines for everything that talks to the stack."""
        return self.state / "environment"

    @property
    def shared(self) -> Path:
        """The cluster's shared file system (FSx for Lustre on AWS)."""
        return self.state / "fsx"

    @property
    def home(self) -> Path:
        """What Strandloop keeps on the shared file system."""
        return self.shared / "strandloop"

    @property
    def programs(self) -> Path:
        """Virtual environments that ``make setup`` built, used by every stack of this checkout."""
        return self.project / ".local" / "venvs"

    @property
    def samples(self) -> Path:
        """Sample reads, one folder for each sample, as ``make setup`` fetched them."""
        return self.project / ".local" / "samples"

    @property
    def node_environment(self) -> Path:
        """The virtual environment of the Slurm nodes, as ``make setup`` built it."""
        return self.project / ".local" / "fsx" / "strandloop" / "env"

    @property
    def python_bin(self) -> Path:
        """The directory of the project's own Python and its console scripts."""
        return self.project / ".venv" / "bin"

    def make_directories(self) -> None:
        """Create the directories; refuses a runtime directory that somebody else made first."""
        for directory in (self.state, self.logs, self.records, self.home):
            directory.mkdir(parents=True, exist_ok=True)
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        found = self.runtime.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077 or self.runtime.is_symlink():
            raise StackError(
                f"{self.runtime} does not belong to you alone; remove it, or use another --state directory"
            )


def current_user() -> str:
    """The login name of the user that runs this process."""
    return pwd.getpwuid(os.getuid()).pw_name
