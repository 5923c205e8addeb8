"""The half ring: every pair of rows is compared once, on P ranks, with neighbour-to-neighbour messages.

Rank r owns block r. In step 0 it compares the block with itself. Then a copy of each block travels to the right,
one rank a step, for floor(P/2) steps; wherever it arrives it is compared with the block that lives there. The
scores are symmetric, so such a meeting serves the rows of both: those of the resident block go into its own
lists, those of the visitor into lists that travel with it and return to their owner at the end. Half the
arithmetic of a full ring, and half the steps. For even P two blocks meet on both of their ranks in the last step,
so each rank then takes one half of the rows of the lower block.

The vectors of the next visitor are on their way while this one is compared. The lists (12 k bytes a row, against
4 D) can only follow after the comparison.
"""

from __future__ import annotations

import time
from functools import cache

import numpy as np
from mpi4py import MPI

from hpc_jobs.mpi_dna_seq.tiles import Best, Block, Comparison

ELEMENTS = {np.dtype(np.float32): MPI.FLOAT, np.dtype(np.int64): MPI.INT64_T}


class HalfRing:
    """Blocks of all ranks, compared all against all; one instance per rank and computation.

    :param rows: rows of the whole store; rank r owns rows r * rows // P to (r + 1) * rows // P.
    """

    def __init__(self, comm: MPI.Comm, rows: int) -> None:
        self._comm = comm
        self._first_rows = [rank * rows // comm.size for rank in range(comm.size + 1)]
        self._travelling: list[MPI.Request] = []
        self.communication_seconds = 0.0

    @property
    def own_rows(self) -> tuple[int, int]:
        """First row of this rank's block, and the row after its last."""
        return self._first_rows[self._comm.rank], self._first_rows[self._comm.rank + 1]

    def advance(self) -> None:
        """Let the messages under way move on: MPI libraries move large ones only inside of MPI calls."""
        MPI.Request.Testall(self._travelling)

    def compare(self, home: Block, comparison: Comparison) -> None:
        """Fill the lists of ``home`` with the best k of all other rows; collective."""
        rank, size = self._comm.rank, self._comm.size
        steps = size // 2
        if steps == 0:
            comparison.within(home)
            return
        arriving, spare = self._buffer(home.vectors.shape[1]), self._buffer(home.vectors.shape[1])
        self._send_on(home.vectors, arriving, owner=(rank - 1) % size)
        comparison.within(home)
        lists = Best.empty(len(home.vectors), home.best.k, home.best.thresholds)
        for step in range(1, steps + 1):
            owner = (rank - step) % size
            visitors = arriving[: self._block_rows(owner)]
            self._wait()
            if step < steps:
                arriving, spare = spare, arriving
                self._send_on(visitors, arriving, owner=(owner - 1) % size)
            lists = self._pass(lists, to=(rank + 1) % size, source=(rank - 1) % size, owner=owner)
            visitor = Block(self._first_rows[owner], visitors, lists)
            if 2 * step < size:
                comparison.across(home, visitor)
            elif rank < owner:
                comparison.across(home, visitor, stop=len(home.vectors) // 2)
            else:
                comparison.across(visitor, home, start=len(visitors) // 2)
        returned = self._pass(lists, to=(rank - steps) % size, source=(rank + steps) % size, owner=rank)
        home.best.merge(returned, home.vectors.shape[1])

    def _block_rows(self, owner: int) -> int:
        return self._first_rows[owner + 1] - self._first_rows[owner]

    def _buffer(self, dim: int) -> np.ndarray:
        return np.empty((max(map(self._block_rows, range(self._comm.size))), dim), np.float32)

    def _send_on(self, vectors: np.ndarray, into: np.ndarray, *, owner: int) -> None:
        """Start sending a block to the right, and receiving the next one, that of ``owner``, from the left."""
        size, rank = self._comm.size, self._comm.rank
        self._travelling = [
            self._comm.Irecv(_message(into[: self._block_rows(owner)]), source=(rank - 1) % size),
            self._comm.Isend(_message(vectors), dest=(rank + 1) % size),
        ]

    def _wait(self) -> None:
        began = time.perf_counter()
        MPI.Request.Waitall(self._travelling)
        self._travelling = []
        self.communication_seconds += time.perf_counter() - began

    def _pass(self, lists: Best, *, to: int, source: int, owner: int) -> Best:
        """Send lists to one rank and receive those of ``owner``'s rows from another."""
        began = time.perf_counter()
        received = Best.empty(self._block_rows(owner), lists.k)
        for tag, name in enumerate(("scores", "ids", "thresholds"), start=1):
            outgoing, incoming = _message(getattr(lists, name)), _message(getattr(received, name))
            self._comm.Sendrecv(outgoing, to, tag, incoming, source, tag)
        self.communication_seconds += time.perf_counter() - began
        return received


def _message(array: np.ndarray) -> tuple[np.ndarray, int, MPI.Datatype]:
    """An array as so many rows: a count of elements would overflow MPI's 32 bits beyond 8 GiB."""
    width = array.shape[1] if array.ndim == 2 else 1
    return array, len(array), _row_type(array.dtype, width)


@cache
def _row_type(dtype: np.dtype, width: int) -> MPI.Datatype:
    return ELEMENTS[dtype].Create_contiguous(width).Commit()
