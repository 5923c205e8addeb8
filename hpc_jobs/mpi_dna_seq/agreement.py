"""Steps of the kernel that all ranks take together, and what is said by one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mpi4py import MPI

from hpc_jobs import collective, neighbours, store
from hpc_jobs.mpi_dna_seq import build
from hpc_jobs.mpi_dna_seq.cells import CellsError
from hpc_jobs.mpi_dna_seq.checkpoint import CheckpointError
from hpc_jobs.mpi_dna_seq.members import RingError

Result = TypeVar("Result")
REFUSALS = (
    store.StoreError,
    neighbours.NeighboursError,
    build.BuildError,
    RingError,
    CheckpointError,
    CellsError,
)
"""What is wrong with the input or with what was asked for."""


def together(comm: MPI.Intracomm, step: Callable[[], Result]) -> Result:
    """See :func:`hpc_jobs.collective.together`."""
    return collective.together(comm, step, refusals=REFUSALS)


def say(comm: MPI.Intracomm, text: str) -> None:
    """Print a line from rank 0."""
    if comm.rank == 0:
        print(text, flush=True)
