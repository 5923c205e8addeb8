"""``python -m hpc_jobs.mpi_dna_seq --store DIR --out DIR --k 10``, alone or under ``mpirun``.

The BLAS library reads its settings when numpy is imported, so they are made here, before.
"""

from __future__ import annotations

import os
import sys

from hpc_jobs.mpi_dna_seq.build import processor_features


def main() -> int:
    """Settle the BLAS library, then run the job; gives the exit status."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(blas_threads()))
    if core := blas_core():
        os.environ.setdefault("OPENBLAS_CORETYPE", core)

    from hpc_jobs.mpi_dna_seq.job import main as run

    return run(sys.argv[1:])


def blas_threads() -> int:
    """Processors of this rank: what Slurm or OpenMP says, 1 beside other ranks, else all of the machine."""
    for variable in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS"):
        if (said := os.environ.get(variable, "")).isdigit():
            return max(int(said), 1)
    return 1 if "OMPI_COMM_WORLD_SIZE" in os.environ else len(os.sched_getaffinity(0))


def blas_core() -> str | None:
    """A better choice of OpenBLAS kernels than its own, or None.

    OpenBLAS 0.3.31 takes AVX2 kernels on AMD processors that it does not know yet (family 26): 108 GFLOP/s a
    core; its AVX-512 kernels gave 195 there.
    """
    features = processor_features()
    amd = "clzero" in features  # an instruction that only AMD has
    return "SkylakeX" if amd and {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= features else None


if __name__ == "__main__":
    sys.exit(main())
