"""Run by eight ranks: ``ring_cases.py CASES OUT`` computes all of a JSON list of options of a request, in every one
of ``LAYOUTS``, into ``OUT/<layout>/<number of the case>``. Starting eight Pythons costs more than the cases.
"""

import json
import sys
from pathlib import Path

LAYOUTS = {
    "1": (1, None, 1),
    "2": (2, None, 1),
    "1+1": (2, 1, 1),
    "1+1+1": (3, 1, 1),
    "1+1+1+1": (4, 1, 1),
    "(1+1)x2": (4, 1, 2),
    "1+1+1+1+1": (5, 1, 1),
    "2+2+1": (5, 2, 1),
    "8": (8, None, 1),
    "1+1+1+1+1+1+1+1": (8, 1, 1),
    "(1+1+1+1)x2": (8, 1, 2),
    "(2+2)x2": (8, 2, 2),
}
"""Ranks, ranks per member, replication."""


def compute() -> None:
    from mpi4py import MPI

    from hpc_jobs.mpi_dna_seq import job, schedule

    schedule.SMALLEST_CHUNK, schedule.PIECES = 3, 4  # several pieces of few rows
    world = MPI.COMM_WORLD
    cases = json.loads(Path(sys.argv[1]).read_text())
    for sizes in ([8], [5, 3], [4, 2, 1]):  # that run side by side
        member_of = [size for size in sizes for _ in range(size)] + [0] * (8 - sum(sizes))
        comm = world.Split(member_of[world.rank])
        for name, (ranks, ranks_per_member, replication) in LAYOUTS.items():
            for number, case in enumerate(cases):
                if ranks == member_of[world.rank]:
                    request = job.Request(
                        out=Path(sys.argv[2], name, str(number)),
                        ranks_per_member=ranks_per_member,
                        replication=replication,
                        **{**case, "store": Path(case["store"])},
                    )
                    job.run(comm, request)
        world.Barrier()


if __name__ == "__main__":
    compute()
