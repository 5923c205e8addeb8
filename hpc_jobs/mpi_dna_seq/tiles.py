"""Tiles: a matrix product proposes pairs, one fixed-order dot product decides.

**What is computed.** The score of two rows x, y is s(x, y) = fl32(dot64(x, y)): products (exact in double),
16 interleaved sums in double, added pairwise, rounded once to float32 (``pair_score`` in topk.c). It depends on
x and y alone, and s(x, y) = s(y, x). The neighbours of a row are the first k of all other rows in the order
(s descending, row ascending). As rows differ, this is a total order: the k best are one definite list,
whatever the order in which pairs are met.

**Why no pair is lost.** Let p be the proposal for the pair in float32, by any order of additions, fused or not,
and d the true dot product. With u = 2^-24 and vectors no longer than L = 1 + 1e-3 (checked at loading),
|p - d| <= g |x|.|y| <= g L^2 where g = D u / (1 - D u) (Higham, Accuracy and Stability of Numerical
Algorithms, 3.1), and |s - d| <= 2^-24 (rounding to float32; the error in double is 1e-8 of that).
A row's list holds, at any time, scores of true pairs; let t be its k-th. The final k-th score is t or more.
A pair is passed over only where p < fl32(t - m). With m = g L^2 + 2^-22, of which 2^-22 covers the rounding of
s, of the subtraction, of m itself and any underflow, p < fl32(t - m) gives s < t *strictly*: at least k rows have
a higher score than this pair, so it is in no k best, not even by the order among equals. Every other pair is
scored and put in its place. So ties and duplicates need no care: of 1,000 equal rows each keeps the k
lowest, because all of these pairs pass (they cost one dot product each, some 20 ns at D = 128).

The same holds for a threshold that comes from *other* pairs of the row (a block that travels starts with the
thresholds it has at home): any t of k true pairs of the row is a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hpc_jobs.mpi_dna_seq import build
from hpc_jobs.store import NORM_TOLERANCE


def margin(dim: int) -> float:
    """How far a float32 proposal may lie from the score that decides; the m of the proof above."""
    unit = 2.0**-24
    return dim * unit / (1 - dim * unit) * (1 + NORM_TOLERANCE) ** 2 + 2.0**-22


@dataclass(frozen=True)
class Best:
    """The best k so far of n rows: float32 ``scores`` (n, k), int64 ``ids`` (n, k), float32 ``thresholds`` (n,).

    Ordered by (score descending, id ascending); -inf and -1 where there is no neighbour yet.
    """

    scores: np.ndarray
    ids: np.ndarray
    thresholds: np.ndarray

    @classmethod
    def empty(cls, rows: int, k: int, thresholds: np.ndarray | None = None) -> Best:
        """No neighbours yet; ``thresholds`` that are known already spare most of the warm-up."""
        if thresholds is None:
            thresholds = np.full(rows, -np.inf, np.float32)
        return cls(
            np.full((rows, k), -np.inf, np.float32), np.full((rows, k), -1, np.int64), thresholds.copy()
        )

    @property
    def k(self) -> int:
        """Length of each row's list."""
        return self.scores.shape[1]

    def merge(self, other: Best, dim: int) -> None:
        """Take in the lists of ``other``: the same rows, but pairs that this one has not met."""
        build.load().merge_best(self.at(0), other.at(0), len(self.scores), self.k, margin(dim))

    def at(self, row: int) -> build.BestK:
        """Addresses of the lists from ``row`` on, for the compiled code."""
        return build.BestK(
            self.scores.ctypes.data + row * self.scores.strides[0],
            self.ids.ctypes.data + row * self.ids.strides[0],
            self.thresholds.ctypes.data + row * self.thresholds.strides[0],
        )


@dataclass(frozen=True)
class Block:
    """Consecutive rows of the store: ``vectors`` float32 (n, dim) from ``first_row`` on, with their lists."""

    first_row: int
    vectors: np.ndarray
    best: Best


class Comparison:
    """Compares blocks tile by tile, each pair once for both of its rows, and keeps account of it.

    :param tile: rows and columns of a tile; 512 keeps a tile of scores (1 MiB) in a core's L2 cache.
    :param between: called after each row of tiles with the number of pairs compared so far: the place to
        drive communication and to report progress.
    """

    def __init__(self, dim: int, *, tile: int, between: Callable[[int], None]) -> None:
        self._dim = dim
        self._tile = tile
        self._between = between
        self._margin = margin(dim)
        self._library = build.load()
        self._proposed = np.empty(tile * tile, np.float32)
        self.product_seconds = 0.0
        self.merge_seconds = 0.0
        self.pairs = 0
        self.pairs_scored = 0

    def within(self, block: Block) -> None:
        """All pairs of two rows of one block."""
        for top in range(0, len(block.vectors), self._tile):
            for left in range(top, len(block.vectors), self._tile):
                self._merge(block, top, len(block.vectors), block, left)
            self._between(self.pairs)

    def across(self, rows: Block, columns: Block, *, start: int = 0, stop: int | None = None) -> None:
        """All pairs of a row of ``rows``, from ``start`` to ``stop``, and a row of ``columns``."""
        stop = len(rows.vectors) if stop is None else stop
        for top in range(start, stop, self._tile):
            for left in range(0, len(columns.vectors), self._tile):
                self._merge(rows, top, stop, columns, left)
            self._between(self.pairs)

    def _merge(self, rows: Block, top: int, stop: int, columns: Block, left: int) -> None:
        """One tile: its product, then the merge into the lists of both sides."""
        began = time.perf_counter()
        x = rows.vectors[top : min(top + self._tile, stop)]
        y = columns.vectors[left : left + self._tile]
        proposed = self._proposed[: len(x) * len(y)].reshape(len(x), len(y))
        np.matmul(x, y.T, out=proposed)
        multiplied = time.perf_counter()
        self.pairs_scored += self._library.merge_tile(
            proposed.ctypes.data,
            len(x),
            len(y),
            x.ctypes.data,
            y.ctypes.data,
            self._dim,
            rows.first_row + top,
            columns.first_row + left,
            rows.best.at(top),
            columns.best.at(left),
            rows.best.k,
            self._margin,
        )
        on_diagonal = rows.first_row + top == columns.first_row + left
        self.pairs += len(x) * (len(x) - 1) // 2 if on_diagonal else len(x) * len(y)
        self.product_seconds += multiplied - began
        self.merge_seconds += time.perf_counter() - multiplied
