"""The virtual environments: the project's own, the S3 server's, the Slurm nodes', and ParallelCluster's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from infra.setup.commands import LOCAL, PROJECT, run

UV_VERSION = "0.13.8"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu/"


@dataclass(frozen=True)
class VirtualEnvironment:
    """A directory that holds a Python with the packages of one requirements file."""

    path: Path
    requirements: Path
    with_torch: bool = False

    def is_current(self) -> bool:
        """Whether it was built from these requirements with this version of Python."""
        stamp = self._stamp
        return self._python.exists() and stamp.exists() and stamp.read_text() == self._identity()

    def build(self, uv: Path) -> None:
        """Install the requirements; starts anew where another version of Python is there."""
        env = uv_environment()
        if not self._python.exists() or _version(self._python) != _version(Path(sys.executable)):
            command = [str(uv), "venv", "--quiet", "--clear", "--python", base_python(), str(self.path)]
            run(command, env=env)
        command = [str(uv), "pip", "install", "--quiet", "--python", str(self._python)]
        command += ["--requirement", str(self.requirements)]
        run(command + (_torch_options() if self.with_torch else []), env=env)
        self._stamp.write_text(self._identity())

    @property
    def _python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def _stamp(self) -> Path:
        return self.path / "strandloop-requirements"

    def _identity(self) -> str:
        return f"{hashlib.sha256(self.requirements.read_bytes()).hexdigest()} {sys.version_info[:2]}\n"


ENVIRONMENTS = (
    VirtualEnvironment(PROJECT / ".venv", PROJECT / "requirements.txt", with_torch=True),
    VirtualEnvironment(LOCAL / "venvs" / "ministack", PROJECT / "infra" / "local" / "requirements.txt"),
    VirtualEnvironment(LOCAL / "fsx" / "strandloop" / "env", PROJECT / "hpc_jobs" / "requirements.txt"),
)
# For `--with parallelcluster`: tests and those who make clusters from here.
PARALLELCLUSTER = VirtualEnvironment(
    LOCAL / "venvs" / "pcluster", PROJECT / "infra" / "parallelcluster" / "requirements.txt"
)


def build_changed(*, with_parallelcluster: bool = False) -> bool:
    """Build every environment whose requirements or Python have changed; tells whether there was one."""
    wanted = [*ENVIRONMENTS, *([PARALLELCLUSTER] if with_parallelcluster else [])]
    changed = [environment for environment in wanted if not environment.is_current()]
    for environment in changed:
        environment.build(_uv())
    return bool(changed)


def base_python() -> str:
    """The Python below the virtual environment that may run this: the one to make environments from."""
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def uv_environment() -> dict[str, str]:
    """The caller's environment, with pip's settings in it said to uv as well."""
    env = dict(os.environ)
    # An active virtual environment is not the one to install into.
    env.pop("VIRTUAL_ENV", None)
    for pip_name, uv_name in (
        ("PIP_FIND_LINKS", "UV_FIND_LINKS"),
        ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
        ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
    ):
        if pip_name in env:
            env.setdefault(uv_name, env[pip_name])
    if "PIP_EXTRA_INDEX_URL" in env:
        # As pip does: the best version of all indexes, not the first index that knows the name.
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    if "SSL_CERT_FILE" in env:
        env.setdefault("UV_SYSTEM_CERTS", "1")
    return env


def _uv() -> Path:
    """uv in an environment of its own; Debian has no package of it."""
    home = LOCAL / "venvs" / "uv"
    uv = home / "bin" / "uv"
    if not uv.exists() or f" {UV_VERSION} " not in f"{_output([str(uv), '--version'])} ":
        home.parent.mkdir(parents=True, exist_ok=True)
        run([base_python(), "-m", "venv", "--clear", str(home)])
        run([str(home / "bin" / "pip"), "install", "--quiet", f"uv=={UV_VERSION}"])
    return uv


def _torch_options() -> list[str]:
    """Options that make uv take PyTorch's CPU build where there is no NVIDIA GPU.

    Requirements say ``torch==X``, which both builds satisfy; PyPI has the CUDA build only.
    """
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        return []
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        if any(Path(folder).glob(f"torch-*+cpu-{tag}-*.whl")):
            return []  # of two builds of one version, uv prefers the one with the local label
    if _answers(TORCH_CPU_INDEX):
        return ["--torch-backend", "cpu"]
    print(
        f"note: {TORCH_CPU_INDEX} does not answer, so PyTorch's CUDA build comes from the package index: "
        "several GB that this machine will not use. A CPU wheel in a folder named by PIP_FIND_LINKS avoids it."
    )
    return []


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10):
            return True
    except OSError:
        return False


def _version(python: Path) -> str:
    return _output([str(python), "-c", "import sys; print(sys.version_info[:2])"])


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
