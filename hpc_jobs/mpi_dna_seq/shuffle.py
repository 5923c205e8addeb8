"""Items go to other ranks and their answers come back: all-to-all messages of whole rows of arrays."""

from __future__ import annotations

import time

import numpy as np
from mpi4py import MPI


class Exchange:
    """All-to-all messages of rows, and the ``seconds`` that they took, waiting for the other ranks included."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self.seconds = 0.0

    def __call__(self, rows: np.ndarray, sent: np.ndarray, received: np.ndarray) -> np.ndarray:
        """Send the first ``sent[0]`` rows to rank 0, the next ``sent[1]`` to rank 1, …; collective."""
        began = time.perf_counter()
        arrived = np.empty((int(received.sum()), *rows.shape[1:]), rows.dtype)
        row_bytes = rows.dtype.itemsize * int(np.prod(rows.shape[1:]))
        row = MPI.BYTE.Create_contiguous(row_bytes).Commit()  # counts of bytes would overflow MPI's 32 bits
        self.comm.Alltoallv([np.ascontiguousarray(rows), sent, row], [arrived, received, row])
        row.Free()
        self.seconds += time.perf_counter() - began
        return arrived


class Shuffle:
    """One set of items on every rank, and the rank that each is to go to; collective, as are its methods.

    Items arrive in the order of the ranks they come from, and of those of one rank in their order there.
    """

    def __init__(self, exchange: Exchange, destinations: np.ndarray) -> None:
        self._exchange = exchange
        self._order = np.argsort(destinations, kind="stable")
        self._sent = np.bincount(destinations, minlength=exchange.comm.size)
        self._received = np.empty_like(self._sent)
        exchange.comm.Alltoall(self._sent, self._received)

    def there(self, array: np.ndarray, *, rows: np.ndarray | None = None) -> np.ndarray:
        """Send ``array[i]`` for item i, or ``array[rows[i]]``; gives what arrived here."""
        order = self._order if rows is None else rows[self._order]
        return self._exchange(array[order], self._sent, self._received)

    def back(self, answers: np.ndarray) -> np.ndarray:
        """Return an answer for each item that arrived, in that order; gives those for this rank's own items."""
        arrived = self._exchange(answers, self._received, self._sent)
        own = np.empty_like(arrived)
        own[self._order] = arrived
        return own
