"""How the tests start the kernel: under mpirun, on stores that they write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from hpc_jobs import store

ROOT = Path(__file__).parents[3]


def mpirun(ranks: int, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # containers forbid process_vm_readv
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_odls_base_sigkill_timeout": "0",  # mpirun else stays 2 s where a rank failed
    }
    launch = ["mpirun", "--quiet", "--bind-to", "none", "-np", str(ranks), sys.executable]
    return subprocess.run([*launch, *command], env=environment, capture_output=True, text=True, timeout=120)


def write(directory: Path, vectors: np.ndarray) -> Path:
    ids = pa.array([f"ecoli:{row + 1}" for row in range(len(vectors))], pa.string())
    store.write_store(directory, ids, vectors, encoder_uri="e", encoder_revision="r", shard_rows=70)
    return directory


def unit_vectors(rows: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
