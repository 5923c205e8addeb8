"""The batch scripts, run as Slurm would run them on one node: by bash, in a deployed folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hpc_jobs import neighbours, store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """STRANDLOOP_HOME with this code and this Python, and an environment.sh."""
    home = tmp_path / "strandloop"
    home.mkdir()
    (home / "code").symlink_to(ROOT)
    (home / "env").symlink_to(sys.prefix)
    (home / "environment.sh").write_text("export OMPI_MCA_rmaps_base_oversubscribe=1\n")
    return home


def sbatch(script: str, *arguments: str, home: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SLURM"))
    }
    environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if home:
        environment["STRANDLOOP_HOME"] = str(home)
    command = ["bash", str(ROOT / "hpc_jobs" / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd="/")


def test_the_kernel_runs_from_the_deployed_folder(home: Path, tmp_path: Path) -> None:
    vectors = np.eye(6, 4, dtype=np.float32)
    ids = pa.array([f"r{row}" for row in range(6)])
    store.write_store(tmp_path / "store", ids, vectors, encoder_uri="e", encoder_revision="r")
    where = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "with a space")]
    done = sbatch("mpi_dna_seq.sbatch", *where, "--k", "2", home=home)
    assert done.returncode == 0, done.stderr
    assert neighbours.verify(tmp_path / "with a space").edges == 12


def test_any_module_of_the_code_runs_and_gives_its_exit_status(home: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(3))
    arguments = ["from-npy", str(tmp_path / "x.npy"), str(tmp_path / "store")]
    assert sbatch("run_module.sbatch", "hpc_jobs.store", *arguments, home=home).returncode == 0
    failed = sbatch("run_module.sbatch", "hpc_jobs.store", "verify", str(tmp_path / "nowhere"), home=home)
    assert failed.returncode == 1
    assert "has no manifest.json" in failed.stderr


@pytest.mark.parametrize("script", ["mpi_dna_seq.sbatch", "run_module.sbatch"])
def test_a_script_says_what_it_needs(script: str) -> None:
    failed = sbatch(script, home=None)
    assert failed.returncode != 0
    assert "STRANDLOOP_HOME: set it to <shared directory>/strandloop" in failed.stderr
