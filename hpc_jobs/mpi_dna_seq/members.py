"""The members of the ring: groups of ranks that share memory, ordinarily all ranks of a node.

What many ranks of a node need is there once, in an MPI shared-memory window. Open MPI keeps it in ``/dev/shm``,
by default half of the machine's memory (``mount -o remount,size=90% /dev/shm``; a container: ``--shm-size``).
"""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
from mpi4py import MPI

ALIGNMENT = 64  # bytes: of the arrays in a window, a cache line


class RingError(Exception):
    """The ranks cannot be arranged as asked, or their node's memory is too small."""


class Member:
    """A rank's place: ``rank`` of the member at ``position`` of ring ``layer``. All ranks make theirs at once.

    :param ranks_per_member: the ranks of a node form members of so many ranks, the last maybe of fewer, for
        instance one for each NUMA domain; None: all of them are one.
    :param layers: rings that hold all rows each, see :mod:`hpc_jobs.mpi_dna_seq.schedule`.
    :raises RingError: on every rank: the members cannot form so many rings.
    """

    def __init__(self, comm: MPI.Intracomm, *, ranks_per_member: int | None = None, layers: int = 1) -> None:
        shared = comm.Split_type(MPI.COMM_TYPE_SHARED, key=comm.rank)
        self._comm = MPI.Intracomm(
            shared.Split(shared.rank // (ranks_per_member or shared.size), shared.rank)
        )
        self.rank = self._comm.rank
        leaders = comm.Split(0 if self.leads else MPI.UNDEFINED, comm.rank)
        sizes = self._comm.bcast(leaders.allgather(self._comm.size) if self.leads else None)
        number = self._comm.bcast(leaders.rank if self.leads else None)
        members = _members_of_a_ring(len(sizes), layers)
        self.layer, self.position = divmod(number, members)
        self.ranks = tuple(tuple(sizes[layer * members : (layer + 1) * members]) for layer in range(layers))
        self.ring = leaders.Split(self.layer, self.position) if self.leads else MPI.COMM_NULL
        """The leaders of this layer, in order of position; for leaders only."""
        self.across_layers = leaders.Split(self.position, self.layer) if self.leads else MPI.COMM_NULL
        """The leaders at this position, in order of layer; for leaders only."""
        self.ranks_here = self._comm.size
        self.waiting_seconds = 0.0
        self._windows: list[MPI.Win] = []

    @property
    def name(self) -> str:
        """Of the member, for file names."""
        return f"{self.layer}.{self.position}"

    @property
    def leads(self) -> bool:
        """Whether this rank sends and receives for its member."""
        return self.rank == 0

    def shared(self, *arrays: tuple[tuple[int, ...], Any]) -> list[np.ndarray]:
        """Arrays that are the same memory in every rank of the member; by all of its ranks at once.

        :param arrays: shape and dtype of each.
        :raises RingError: where the node has not so much shared memory.
        """
        sizes = [_aligned(int(np.prod(shape)) * np.dtype(dtype).itemsize) for shape, dtype in arrays]
        total = sum(sizes) + ALIGNMENT
        try:
            window = MPI.Win.Allocate_shared(total if self.leads else 0, 1, comm=self._comm)
        except MPI.Exception as error:
            raise RingError(
                f"{MPI.Get_processor_name()} has no {total / 2**20:,.0f} MiB of shared memory "
                f"({error.Get_error_string()}): enlarge /dev/shm, or use more nodes"
            ) from error
        window.Lock_all(MPI.MODE_NOCHECK)
        self._windows.append(window)
        memory = np.frombuffer(cast(memoryview, window.Shared_query(0)[0]), np.uint8)
        start = -memory.ctypes.data % ALIGNMENT  # the same in every rank: windows begin on pages
        views = []
        for (shape, dtype), size in zip(arrays, sizes, strict=True):
            views.append(np.ndarray(shape, dtype, memory, start))
            start += size
        return views

    def barrier(self) -> None:
        """Wait for the other ranks of the member; what one has written before, all see after."""
        if self._comm.size == 1:
            return
        began = time.perf_counter()
        for window in self._windows:
            window.Sync()
        self._comm.Barrier()
        for window in self._windows:
            window.Sync()
        self.waiting_seconds += time.perf_counter() - began

    def free(self) -> None:
        """Give the shared memory back, by all ranks of the member at once; its arrays must not be used any more."""
        for window in self._windows:
            window.Unlock_all()
            window.Free()
        self._windows = []


def _members_of_a_ring(members: int, layers: int) -> int:
    """Members of each of so many rings; raises RingError where they do not come out."""
    if members % layers or layers > members // layers // 2 + 1:
        fitting = [c for c in range(1, members + 1) if members % c == 0 and c <= members // c // 2 + 1]
        raise RingError(
            f"replication {layers} does not fit {members} ring members (nodes): they must form rings of equal "
            f"size, each with at least one step to do; here {', '.join(map(str, fitting))} would"
        )
    return members // layers


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
