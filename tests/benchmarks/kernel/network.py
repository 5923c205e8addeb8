"""How long messages take between the ranks of one mpirun: ``mpirun ... python -m tests.benchmarks.kernel.network``.

Every rank sends to its right and receives from its left at once, as the kernel's ring does. Rank 0 prints JSON:
``alpha_seconds`` of a message of 8 bytes, ``bytes_per_second`` of one of :data:`LARGE_BYTES` less that. Least of
some repeats each.
"""

from __future__ import annotations

import json
import time

import numpy as np
from mpi4py import MPI

LARGE_BYTES = 4 << 20
REPEATS = {8: 50, LARGE_BYTES: 5}


def exchange_seconds(comm: MPI.Comm, size: int) -> float:
    """Of the slowest rank, in the best repeat."""
    outgoing, incoming = np.zeros(size, np.uint8), np.empty(size, np.uint8)
    seconds = []
    for _ in range(REPEATS[size]):
        comm.Barrier()
        began = time.perf_counter()
        comm.Sendrecv(outgoing, (comm.rank + 1) % comm.size, 0, incoming, (comm.rank - 1) % comm.size, 0)
        seconds.append(comm.allreduce(time.perf_counter() - began, MPI.MAX))
    return min(seconds)


def main() -> None:
    """Collective."""
    comm = MPI.COMM_WORLD
    alpha, large = exchange_seconds(comm, 8), exchange_seconds(comm, LARGE_BYTES)
    if comm.rank == 0:
        print(
            json.dumps({"alpha_seconds": alpha, "bytes_per_second": LARGE_BYTES / max(large - alpha, 1e-9)})
        )


if __name__ == "__main__":
    main()
