"""The custom action that installs the artifact on a cluster's nodes, run as a node runs it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.package.build import CODE, PROJECT
from infra.setup.commands import LOCAL
from infra.setup.environments import uv_environment
from strandloop.code_archive import sources, zipped
from tasks.object_store import ObjectStore, ObjectUri

pytestmark = pytest.mark.integration

SCRIPT = PROJECT / "hpc_jobs" / "node_environment.sh"
#: Of the pinned requirements these are installed here: the others take most of a minute.
FEW = ("mpi4py==",)


@pytest.fixture(scope="session")
def aws_command() -> Path:
    """The folder of AWS's command line, which ParallelCluster's images have."""
    target, uv = LOCAL / "venvs" / "awscli", LOCAL / "venvs" / "uv" / "bin" / "uv"
    if not (target / "bin" / "aws").exists():
        base = getattr(sys, "_base_executable", sys.executable)
        for command in (
            ["venv", "--clear", "--python", base, target],
            ["pip", "install", "-p", target, "awscli"],
        ):
            subprocess.run([uv, *command], env=uv_environment(), check=True, capture_output=True)
    return target / "bin"


@pytest.fixture
def artifact(tmp_path: Path, s3_root: str) -> tuple[str, str]:
    """The code, with few requirements, in S3: its address and SHA-256."""
    members = dict(member for package in CODE for member in sources(PROJECT / package, under=package))
    pins = members["hpc_jobs/requirements.txt"].read_text().splitlines()
    members["hpc_jobs/requirements.txt"] = tmp_path / "few.txt"
    (tmp_path / "few.txt").write_text("\n".join(pin for pin in pins if pin.startswith(FEW)))
    content = zipped(members)
    uri = ObjectUri.parse(s3_root) / "code" / "code.zip"
    ObjectStore().put_bytes(uri, content)
    return str(uri), hashlib.sha256(content).hexdigest()


@pytest.fixture
def install(aws_command: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the script with a node's path; the tests' own Python stands for the node's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    base = getattr(sys, "_base_executable", sys.executable)
    (programs / f"python3.{sys.version_info[1]}").symlink_to(base)
    (programs / "aws").symlink_to(aws_command / "aws")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            ["bash", SCRIPT, *arguments, str(tmp_path / "home")],
            env=environment | {"PATH": f"{programs}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_node_installs_once_and_moves_to_another_release_at_once(
    artifact: tuple[str, str], install: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    uri, sha256 = artifact
    done = install(uri, sha256)
    assert done.returncode == 0, done.stderr
    assert (home / "current").readlink() == Path("releases", sha256)
    # As the job scripts do; the kernel is built already, and loads.
    command = "import mpi4py, hpc_jobs.mpi_dna_seq.build as b; print(b.build().parent, b.kernel().path)"
    job = f'. "{home}/environment.sh"; PYTHONPATH="{home}/code" "{home}/env/bin/python" -c "{command}"'
    loaded = subprocess.run(["bash", "-euc", job], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith(f"{home}/code/hpc_jobs/mpi_dna_seq ")
    assert len(list((home / "code" / "hpc_jobs" / "mpi_dna_seq").glob("topk-*.so"))) == 1

    before = {path: path.lstat().st_mtime_ns for path in home.rglob("*") if "__pycache__" not in path.parts}
    again = install(uri, sha256)
    assert (again.returncode, "installed already" in again.stdout) == (0, True), again.stderr
    assert before == {path: path.lstat().st_mtime_ns for path in before}

    # Another release that is complete is only pointed at.
    (home / "releases" / ("0" * 64)).symlink_to(sha256)
    moved = install("s3://nobody/asks-for-this.zip", "0" * 64)
    assert moved.returncode == 0, moved.stderr
    assert (home / "current").readlink() == Path("releases", "0" * 64)
    assert (home / "code" / "tasks" / "__init__.py").exists()


def test_what_cannot_be_installed_leaves_nothing_and_says_why(
    artifact: tuple[str, str], install: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    uri, sha256 = artifact
    wrong = install(uri, "f" * 64)
    assert wrong.returncode == 1
    assert f"{uri} has the SHA-256 {sha256}, and not {'f' * 64}" in wrong.stderr
    missing = install(f"{uri}-not", sha256)
    assert missing.returncode == 1
    assert f"cannot download {uri}-not" in missing.stderr
    home = tmp_path / "home"
    assert not list((home / "releases").iterdir())
    assert not (home / "current").exists()
    assert "is no SHA-256" in install(uri, "../../etc").stderr
    (home / "code").mkdir()
    assert f"{home}/code is there already" in install(uri, sha256).stderr
