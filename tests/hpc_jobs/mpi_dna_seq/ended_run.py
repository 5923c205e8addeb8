"""The kernel, of which one rank gets a signal at a given place: ``ended_run.py SIGNAL PLACE NUMBER RANK OPTION…``.

It comes when that rank comes to the place for the ``NUMBER``-th time; the places are the keys of ``PLACES``.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from hpc_jobs import neighbours
from hpc_jobs.mpi_dna_seq import job, schedule
from hpc_jobs.mpi_dna_seq.checkpoint import Checkpoint
from hpc_jobs.mpi_dna_seq.restart import Restart
from hpc_jobs.mpi_dna_seq.tiles import Comparison

PLACES: dict[str, tuple[Any, str]] = {
    "amid a unit": (Comparison, "across"),
    "between units": (Restart, "go_on"),
    "file of a checkpoint written": (Checkpoint, "commit"),
    "checkpoint committed": (Checkpoint, "_remove_files"),
    "parts written": (neighbours, "write_manifest"),
    "result written": (Checkpoint, "remove"),
}
number, place, times, rank = (
    signal.Signals[sys.argv[1]],
    PLACES[sys.argv[2]],
    int(sys.argv[3]),
    int(sys.argv[4]),
)
seen = 0
schedule.SMALLEST_CHUNK = 16  # many units of few rows


def signalled(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        global seen
        seen += 1
        if seen == times:
            os.kill(os.getpid(), number)
        return method(*arguments, **named)

    return call


if MPI.COMM_WORLD.rank == rank:
    setattr(*place, signalled(getattr(*place)))
sys.exit(job.main(sys.argv[5:]))
