"""Run by eight ranks: ``ring_cases.py CASES OUT`` computes all of a JSON list [[store, k, tile], …] on 1, 2, 3,
4, 5 and 8 of them, into ``OUT/<ranks>/<number of the case>``. Starting eight Pythons costs more than the cases.
"""

import json
import sys
from pathlib import Path

from mpi4py import MPI

from hpc_jobs.mpi_dna_seq import job

world = MPI.COMM_WORLD
for sizes in ([8], [5, 3], [4, 2, 1]):  # rings that run side by side
    member_of = [size for size in sizes for _ in range(size)] + [0] * (8 - sum(sizes))
    ring = world.Split(member_of[world.rank])
    if size := member_of[world.rank]:
        for number, (directory, k, tile) in enumerate(json.loads(Path(sys.argv[1]).read_text())):
            job.run(ring, Path(directory), Path(sys.argv[2], str(size), str(number)), k=k, tile=tile)
    world.Barrier()
