"""``python -m hpc_jobs.align_pairs --store DIR --reads DIR --neighbours DIR --out DIR``, alone or by ``mpirun``."""

from __future__ import annotations

import sys

from hpc_jobs.align_pairs.job import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
