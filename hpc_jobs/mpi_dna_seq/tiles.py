"""Comparing blocks of rows: a product of tiles proposes pairs, one fixed-order score decides.

The score of two rows depends on them alone, s(x, y) = s(y, x) (``pair_score`` of compare.c): their dot product, or
minus their squared distance, in double in a fixed order, rounded once to float32. The neighbours of a row are
the first k of all other rows in the order (s descending, row ascending). As rows differ, this is a total order:
the k best are one definite list, whatever the order in which pairs are met, and however tiles are multiplied:
:mod:`hpc_jobs.mpi_dna_seq.forms` proves that no product, float32 or int8, loses a pair.

Pairs that score the same as a row's k-th neighbour cost one score each (20 ns at 128 components). A zero vector
has dot product 0 with every row, so that its neighbours are the k lowest others: :func:`close_zero_rows` spares
it all scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ctypes import byref
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from hpc_jobs.mpi_dna_seq import build, forms

Metric = Literal["cosine", "dot", "l2"]
Precision = Literal["fp32", "int8-exact"]
CENTRED_ROWS = 4096  # whose mean is the centre of the int8 form
WASTED = 0.1  # of the pairs of a tile: where int8 proposes more in vain, float32 is faster
LONGEST_PAUSE = 64  # tiles in float32 before int8 is tried again


@dataclass(frozen=True)
class Best:
    """The best k so far of n rows: float32 ``scores`` (n, k), int64 ``ids`` (n, k), float32 ``thresholds`` (n,).

    Ordered by (score descending, id ascending); -inf and -1 where there is no neighbour yet. A threshold is a
    score that k other rows are known to reach, in this list or elsewhere. The arrays may lie in shared memory; each
    must be C-contiguous: they are filled in place.
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

    def merge(self, other: Best) -> None:
        """Take in the lists of ``other``: the same rows, but pairs that this one has not met."""
        build.kernel().merge_best(self.addresses(), other.addresses(), len(self.scores), self.k)

    def addresses(self) -> build.BestK:
        """Where the lists lie, for the compiled code."""
        return build.BestK(*(array.ctypes.data for array in (self.scores, self.ids, self.thresholds)))


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of the store: ``vectors`` float32 (n, dim), C-contiguous, from ``first_row`` on, with lists.

    A comparison keeps what it makes of a block's vectors as long as the block lives: to compare the same rows
    again, keep the block; for other vectors in the same memory make a new one.
    """

    first_row: int
    vectors: np.ndarray
    best: Best


def close_zero_rows(block: Block, *, listed: bool) -> None:
    """Before any comparison by cosine or dot product: zero vectors need no pair, their neighbours are known.

    :param listed: give them these neighbours; else their lists stay empty, for one who merges them with others.
    """
    lowest = np.arange(block.best.k + 1)
    for row in np.flatnonzero(~block.vectors.any(axis=1)).tolist():
        if listed:
            block.best.ids[row] = lowest[lowest != block.first_row + row][: block.best.k]
            block.best.scores[row] = 0
        block.best.thresholds[row] = np.inf


def comparison(
    *,
    metric: Metric = "cosine",
    precision: Precision = "fp32",
    dim: int,
    tile: int = 1024,
    between: Callable[[int], None] = lambda pairs: None,
    device: str | None = None,
) -> Comparison:
    """A comparison for these choices; the answer is the same for every precision, tile and device.

    :param metric: "cosine" takes vectors of length 1 or 0 and is their dot product; "dot" takes any vectors;
        "l2" is minus the squared distance. Vectors are no longer than :data:`forms.LONGEST`.
    :param tile: rows of a tile; 1024 is some 5 % faster than 512, and small beside a block.
    :param device: a torch device such as "cuda"; None for the compiled code on this processor.
    :raises ValueError: a choice that is not there; while comparing, vectors that are not finite or too long.
    :raises device.DeviceError: torch or the device is missing.
    """
    if metric not in ("cosine", "dot", "l2"):
        raise ValueError(f"there is no metric {metric!r}; choose cosine, dot or l2")
    if precision not in ("fp32", "int8-exact"):
        raise ValueError(f"there is no precision {precision!r}; choose fp32 or int8-exact")
    if not 0 < dim <= forms.LARGEST_DIM:
        raise ValueError(f"vectors of {dim} components; 1 to {forms.LARGEST_DIM} can be compared")
    if device is None:
        return Comparison(dim, metric=metric, precision=precision, tile=tile, between=between)
    if precision != "fp32":
        raise ValueError(f"a device compares in fp32, not in {precision}")
    from hpc_jobs.mpi_dna_seq.device import DeviceComparison  # which knows this module

    return DeviceComparison(dim, metric=metric, tile=tile, between=between, device=device)


class Comparison:
    """Compares blocks tile by tile on one core, each pair once for both of its rows, and keeps account of it.

    Products are tested in registers, so that no tile of them is written. int8-exact compares a tile in float32
    where int8 has left too many pairs to be scored in the tiles before. Made by :func:`comparison`.

    :param dim: components of a vector.
    :param tile: rows of a tile. Its columns are four times as many.
    :param between: called after each row of tiles with the number of pairs compared so far: the place to
        drive communication and to report progress.
    """

    def __init__(
        self,
        dim: int,
        *,
        tile: int,
        between: Callable[[int], None],
        metric: Metric,
        precision: Precision,
    ) -> None:
        self._dim = dim
        self._tile = tile
        self._width = -(-4 * tile // forms.PANEL) * forms.PANEL
        self._between = between
        self._distance = metric == "l2"
        self._int8 = precision == "int8-exact"
        self._kernel = build.kernel()
        workspace = np.empty(self._kernel.workspace(tile, dim) + 64, np.uint8)
        self._workspace = workspace[-workspace.ctypes.data % 64 :]
        self._float32_forms: WeakKeyDictionary[Block, forms.Form] = WeakKeyDictionary()
        self._int8_forms: WeakKeyDictionary[Block, forms.Form] = WeakKeyDictionary()
        self._centre: np.ndarray | None = None
        self._tiles_to_pause = 0
        self._next_pause = 1
        self.product_seconds = 0.0
        self.merge_seconds = 0.0
        self.pairs = 0
        self.pairs_scored = 0
        self.pairs_in_fp32 = 0
        """Pairs that were left to float32 where int8 did not pay."""

    def within(self, block: Block) -> None:
        """All pairs of two rows of one block."""
        self._compare(block, 0, len(block.vectors), block)

    def across(self, rows: Block, columns: Block, *, start: int = 0, stop: int | None = None) -> None:
        """All pairs of a row of ``rows``, from ``start`` to ``stop``, and a row of ``columns``."""
        self._compare(rows, start, len(rows.vectors) if stop is None else stop, columns)

    def _compare(self, rows: Block, start: int, stop: int, columns: Block) -> None:
        for block in (rows, columns):
            if block.vectors.dtype != np.float32 or not block.vectors.flags.c_contiguous:
                raise TypeError("the vectors of a block must be float32 and C-contiguous")
        if not rows.best.k or start >= stop or not len(columns.vectors):
            return
        same = rows is columns
        for top in range(start, stop, self._tile):
            bottom = min(top + self._tile, stop)
            for left, right in self._spans(top if same else 0, len(columns.vectors)):
                self._compare_tile(rows, top, bottom, columns, left, right)
                self.pairs += _pairs(top, bottom, left, right, same=same)
            self._between(self.pairs)

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Columns from ``start`` on, tile by tile; each tile begins at a whole panel."""
        for left in range(start // forms.PANEL * forms.PANEL, stop, self._width):
            yield left, min(left + self._width, stop)

    def _compare_tile(
        self, rows: Block, top: int, bottom: int, columns: Block, left: int, right: int
    ) -> None:
        """Rows ``top`` to ``bottom`` with columns ``left`` to ``right``; of one block, pairs above the diagonal."""
        began = time.perf_counter()
        int8 = self._int8 and not self._tiles_to_pause
        tally = build.Tally()
        same = rows is columns
        self._kernel.compare_tile(
            byref(self._side(rows, int8=int8)),
            top,
            bottom - top,
            byref(self._side(columns, int8=int8)),
            left,
            right,
            same,
            self._distance,
            self._dim,
            rows.best.k,
            self._workspace.ctypes.data,
            byref(tally),
        )
        self.pairs_scored += tally.scored
        self.merge_seconds += tally.merge_seconds
        self.product_seconds += time.perf_counter() - began - tally.merge_seconds
        pairs = _pairs(top, bottom, left, right, same=same)
        if int8:
            self._judge(pairs, tally.proposed - tally.inserted)
        elif self._int8:
            self.pairs_in_fp32 += pairs
            self._tiles_to_pause -= 1

    def _judge(self, pairs: int, in_vain: int) -> None:
        """After a tile in int8 that did not pay the next ones are in float32: 1, then 2, 4, …, until it pays."""
        if in_vain <= WASTED * pairs:
            self._next_pause = 1
            return
        self._tiles_to_pause = self._next_pause
        self._next_pause = min(2 * self._next_pause, LONGEST_PAUSE)

    def _side(self, block: Block, *, int8: bool = False) -> build.Side:
        form, float32 = self._form(block, int8=int8), self._form(block)
        return form.side(block.first_row, block.vectors, block.best.addresses(), float32)

    def _form(self, block: Block, *, int8: bool = False) -> forms.Form:
        if block not in self._float32_forms:
            form = forms.as_float32(self._kernel, block.vectors, distance=self._distance)
            wrong = np.flatnonzero(~(form.length[: len(block.vectors)] <= forms.LONGEST))
            if len(wrong):
                raise ValueError(
                    f"the vectors of {len(wrong)} rows hold NaN or infinity or are longer than 2^60, the first is "
                    f"that of row {block.first_row + wrong[0]}; leave them out, or scale all vectors down"
                )
            self._float32_forms[block] = form
        if not int8:
            return self._float32_forms[block]
        if block not in self._int8_forms:
            if self._centre is None:
                self._centre = _centre(block.vectors)
            self._int8_forms[block] = forms.as_int8(
                self._kernel, block.vectors, self._centre, distance=self._distance
            )
        return self._int8_forms[block]


def _centre(vectors: np.ndarray) -> np.ndarray:
    """The mean of rows spread over all of them; any centre gives the same answer, this one quickly."""
    spread = vectors[:: -(-len(vectors) // CENTRED_ROWS)]
    return spread.mean(axis=0, dtype=np.float64).astype(np.float32)


def _pairs(top: int, bottom: int, left: int, right: int, *, same: bool) -> int:
    """Pairs of a tile; of one block with itself, those above the diagonal."""
    if not same:
        return (bottom - top) * (right - left)
    # Row r has the columns from max(left, r + 1) on.
    first = np.maximum(left, np.arange(top, bottom) + 1)
    return int(np.maximum(right - first, 0).sum())
