"""``python -m hpc_jobs.mpi_dna_seq --store DIR --out DIR --k 10``, alone or under ``mpirun``.

One rank per core is the fast way: a tile is too small to be shared by threads. The matrix library reads the
number of its threads when numpy is imported, so it is settled here, before.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the job; gives the exit status."""
    of_a_rank = os.environ.get("OMP_NUM_THREADS") or os.environ.get("SLURM_CPUS_PER_TASK") or "1"
    os.environ.setdefault("OPENBLAS_NUM_THREADS", of_a_rank)

    from hpc_jobs.mpi_dna_seq.job import main as run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
