"""Run under mpirun: ``ring_cases.py CASES OUT`` computes every case of a JSON list [[store, k, tile], …]."""

import json
import sys
from pathlib import Path

from mpi4py import MPI

from hpc_jobs.mpi_dna_seq import job

for number, (directory, k, tile) in enumerate(json.loads(Path(sys.argv[1]).read_text())):
    job.run(MPI.COMM_WORLD, Path(directory), Path(sys.argv[2]) / str(number), k=k, tile=tile)
