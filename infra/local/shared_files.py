"""What the cluster's shared file system must hold before a job runs: code, Python, environment."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from infra.local.layout import StackError
from infra.local.part import Part, aws_environment

PACKAGES = ("hpc_jobs", "tasks")
LEFT_OUT = (".so", ".pyc")
RELEASES_KEPT = 2

# Open MPI's settings for two "nodes" on one machine, loopback only, without complaints about hardware.
OPEN_MPI = {
    # Ranks talk TCP on loopback; libfabric, UCX and InfiniBand probing would only print warnings.
    "OMPI_MCA_pml": "ob1",
    "OMPI_MCA_btl": "self,tcp",
    "OMPI_MCA_btl_tcp_if_include": "lo",
    "OMPI_MCA_oob_tcp_if_include": "lo",
    # Both nodes would pin their first rank to the same core.
    "OMPI_MCA_hwloc_base_binding_policy": "none",
    # Ranks that wait give their core to those that work.
    "OMPI_MCA_mpi_yield_when_idle": "1",
}
OPEN_MPI_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


class SharedFiles(Part):
    """``strandloop/{code,env,environment.sh}``; ``code`` is a link that moves to a new copy at once."""

    name: ClassVar = "shared"
    port_of: ClassVar = {}

    def missing(self) -> list[str]:
        """The nodes' Python."""
        python = self.layout.node_environment / "bin" / "python"
        return [] if python.exists() else [str(python)]

    def start(self) -> None:
        """Deploy this checkout's code, and write what job scripts source."""
        self._link_environment()
        self._deploy()
        part = self._script.with_suffix(".part")
        part.write_text(self._script_text())
        part.replace(self._script)

    def problem(self) -> str | None:
        """Code and Python must be there; that the code is older than this checkout's is no fault."""
        needed = (self._code / "hpc_jobs", self.layout.home / "env" / "bin" / "python")
        return next(
            (f"{path} is missing: run `make setup` and `make up`" for path in needed if not path.exists()),
            None,
        )

    def settled(self) -> bool:
        """Whether jobs will run this checkout's code, with this stack's ports."""
        if self.problem() is not None or not self._is_deployed():
            return False
        return self._script.exists() and self._script.read_text() == self._script_text()

    def describe(self) -> str:
        """The directory, and whether its code is this checkout's."""
        state = "this checkout's" if self._is_deployed() else "older than this checkout's until the next `up`"
        return f"{self.layout.home}, code {state}"

    def _is_deployed(self) -> bool:
        return self._code.resolve().name == _content_hash(self.layout.project)

    @property
    def _code(self) -> Path:
        return self.layout.home / "code"

    def _link_environment(self) -> None:
        """Stacks with another state directory use the node environment that ``make setup`` built."""
        env = self.layout.home / "env"
        if not env.exists():
            env.symlink_to(self.layout.node_environment)

    def _deploy(self) -> None:
        release = self.layout.home / "releases" / _content_hash(self.layout.project)
        if not release.exists():
            staging = release.with_name(f"{release.name}.part")
            shutil.rmtree(staging, ignore_errors=True)
            for source in _sources(self.layout.project):
                target = staging / source.relative_to(self.layout.project)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
            self._compile(staging)
            staging.rename(release)
        link = self._code.with_name("code.new")
        link.unlink(missing_ok=True)
        link.symlink_to(release.relative_to(self._code.parent))
        link.replace(self._code)
        self._forget_old_releases(release)

    def _compile(self, code: Path) -> None:
        """Build the kernel's C library beside its source, with the nodes' own Python."""
        if not (code / "hpc_jobs" / "mpi_dna_seq" / "build.py").exists():
            return
        built = subprocess.run(
            [self.layout.home / "env" / "bin" / "python", "-m", "hpc_jobs.mpi_dna_seq.build"],
            cwd=code,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            raise StackError(f"the similarity kernel does not compile:\n{built.stdout}{built.stderr}")

    def _forget_old_releases(self, current: Path) -> None:
        """Keep the last copy too: jobs that started with it may still load modules from it."""
        by_age = sorted(current.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for release in [path for path in by_age if path != current][RELEASES_KEPT - 1 :]:
            shutil.rmtree(release)

    @property
    def _script(self) -> Path:
        return self.layout.home / "environment.sh"

    def _script_text(self) -> str:
        variables = aws_environment(self.ports) | OPEN_MPI
        if os.getuid() == 0:
            variables |= OPEN_MPI_AS_ROOT
        exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        return "\n".join(
            ["# Sourced by every job script. Written by `python -m infra.local up`.", *exports, ""]
        )


def _sources(project: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in sorted((project / package).rglob("*")):
            if path.is_file() and path.suffix not in LEFT_OUT and "__pycache__" not in path.parts:
                yield path


def _content_hash(project: Path) -> str:
    digest = hashlib.sha256()
    for path in _sources(project):
        digest.update(f"{path.relative_to(project)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
