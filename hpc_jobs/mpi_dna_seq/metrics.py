"""What a run took: a progress line while it runs, ``metrics.json`` at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpi4py import MPI

PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class RankMetrics:
    """What one rank did.

    :param pairs: pairs proposed by this rank's matrix products.
    :param pairs_scored: those of them that no threshold excluded and that were scored exactly.
    :param load_seconds: verifying and reading its rows.
    :param communication_seconds: in messages that could not be hidden behind the comparison, waiting included.
    :param compare_seconds: the whole comparison, from the first tile to the slowest rank's last.
    """

    rank: int
    host: str
    rows: int
    pairs: int
    pairs_scored: int
    load_seconds: float
    product_seconds: float
    merge_seconds: float
    communication_seconds: float
    compare_seconds: float
    write_seconds: float
    peak_memory_bytes: int


def summary(ranks: Sequence[RankMetrics], *, rows: int, dim: int, k: int, seconds: float) -> dict[str, Any]:
    """The fields of ``metrics.json``.

    ``effective_gflops`` is 2 * rows^2 * dim / ``compare_seconds``: what a plain matrix product of all against
    all would have to reach to be as fast.
    """
    compare = max(rank.compare_seconds for rank in ranks)
    pairs = sum(rank.pairs for rank in ranks)
    return {
        "rows": rows,
        "dim": dim,
        "k": k,
        "ranks": len(ranks),
        "nodes": len({rank.host for rank in ranks}),
        "seconds": seconds,
        "compare_seconds": compare,
        "pairs": pairs,
        "pairs_scored": sum(rank.pairs_scored for rank in ranks),
        "pairs_per_second": pairs / compare,
        "effective_gflops": 2 * rows**2 * dim / compare / 1e9,
        "per_rank": [asdict(rank) for rank in ranks],
    }


class Progress:
    """Prints, from rank 0 and every few seconds, how far that rank is; all have the same share."""

    def __init__(self, comm: MPI.Comm, rows: int) -> None:
        self._speaks = comm.rank == 0
        self._size = comm.size
        self._share = max(rows * (rows - 1) // 2 / comm.size, 1)
        self._began = self._said = time.perf_counter()

    def report(self, pairs: int) -> None:
        """Say something if it is time to.

        :param pairs: pairs that this rank has compared so far.
        """
        now = time.perf_counter()
        if not self._speaks or now - self._said < PROGRESS_SECONDS:
            return
        self._said = now
        fraction = min(pairs / self._share, 1.0)
        rate = pairs / (now - self._began)
        left = (1 - fraction) * self._share / rate
        print(f"{fraction:6.1%}, {rate * self._size:.3g} pairs/s, about {left:,.0f} s left", flush=True)
