"""Approximate neighbours, for sizes where all against all is too dear: exact comparison within k-means cells.

Every row has its ``nprobe`` nearest cells (:mod:`hpc_jobs.mpi_dna_seq.kmeans`); the nearest is its home. Two rows
are compared where the home of either is among the nprobe nearest cells of the other; each row's list holds the
best k of the rows it was compared with, by the scores and the order of the exact kernel. A row that met fewer than
k others is compared with all. So the answer is definite: it depends on the number of cells, nprobe and the seed,
not on the number of ranks, and with nprobe = cells it is the exact one.

Of N rows and C cells a row meets about 2 nprobe N / C others; to find its cells it is compared with C centroids.
Rows are sent to the ranks that own their cells, in as many turns as it takes to hold no more than as many rows
again as a rank has itself (or one cell, where that is larger).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from mpi4py import MPI

from hpc_jobs.mpi_dna_seq.kmeans import ROWS_AT_ONCE, nearest_cells, spread_rows, train, training_pairs
from hpc_jobs.mpi_dna_seq.shuffle import Exchange, Shuffle
from hpc_jobs.mpi_dna_seq.tiles import Best, Block, Comparison

NPROBE = 8
RECALL_ROWS = 1_000
QUERIES_AT_ONCE = 4_096


class CellsError(Exception):
    """So many cells, or so many of them for a row, there cannot be."""


@dataclass(frozen=True)
class Cells:
    """How many cells there are, and in how many of them a row looks; ``seed`` chooses the sampled rows."""

    cells: int
    nprobe: int
    seed: int = 1

    @classmethod
    def of(cls, rows: int, *, cells: int | None, nprobe: int | None) -> Cells:
        """What was asked for; else the square root of the rows as cells, and 8 of them for a row."""
        count = max(math.isqrt(rows), 1) if cells is None else cells
        looked_at = min(NPROBE, count) if nprobe is None else nprobe
        if count > max(rows, 1):
            raise CellsError(f"{count:,} cells cannot be made of {rows:,} vectors; ask for fewer (--cells)")
        if looked_at > count:
            raise CellsError(
                f"a row cannot look in {looked_at:,} of {count:,} cells; lower --nprobe, or raise --cells"
            )
        return cls(count, looked_at)

    def expected_pairs(self, rows: int) -> int:
        """How many pairs are compared if all cells are of one size: with centroids, and with each other."""
        in_cells = rows * rows * (2 * self.nprobe - 1) // (2 * self.cells)
        return training_pairs(rows, self.cells) + rows * (self.cells + RECALL_ROWS) + in_cells


@dataclass(frozen=True)
class Quality:
    """How good an approximate answer is.

    :param recall: share of the true k nearest neighbours that were found, or of others that score the same as the
        k-th: a mean over ``recall_rows`` rows, which were compared with all others.
    :param completed_rows: rows that met fewer than k others in their cells and were compared with all.
    """

    recall: float
    recall_rows: int
    completed_rows: int


class CellSearch:
    """The approximate search of one rank; all ranks make one and call it at once.

    :param vectors: float32 (n, dim), this rank's rows: those from ``first_row`` on of ``rows``.
    :param comparison: of these vectors, by cosine or l2: nearest centroids by dot product would not be near.
    :param unit: the vectors have length 1, or 0.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        vectors: np.ndarray,
        *,
        first_row: int,
        rows: int,
        cells: Cells,
        comparison: Comparison,
        unit: bool,
    ) -> None:
        self._comm = comm
        self._exchange = Exchange(comm)
        self._vectors = vectors
        self._ids = np.arange(first_row, first_row + len(vectors))
        self._first_row = first_row
        self._rows = rows
        self._cells = cells
        self._comparison = comparison
        self._unit = unit

    @property
    def communication_seconds(self) -> float:
        """In messages of rows and lists, and waiting for the other ranks' ones."""
        return self._exchange.seconds

    def find(self, best: Best) -> Quality:
        """Fill ``best``, the empty lists of this rank's rows; ``k`` must be less than all rows. Collective."""
        centroids = train(
            self._comm,
            self._vectors,
            first_row=self._first_row,
            rows=self._rows,
            cells=self._cells.cells,
            seed=self._cells.seed,
            unit=self._unit,
            comparison=self._comparison,
        )
        probes = nearest_cells(self._vectors, centroids, self._cells.nprobe, self._comparison)
        homes, visits = (
            np.bincount(cells.ravel(), minlength=self._cells.cells) for cells in (probes[:, 0], probes[:, 1:])
        )
        self._comm.Allreduce(MPI.IN_PLACE, homes)
        self._comm.Allreduce(MPI.IN_PLACE, visits)
        plan = Plan.of(homes, visits, ranks=self._comm.size, rows_at_once=-(-self._rows // self._comm.size))
        for turn in range(plan.turns):
            self._take_turn(plan, turn, probes, best)
        completed = self._complete(best)
        recall, sampled = self._recall(best)
        return Quality(recall, sampled, completed)

    def _take_turn(self, plan: Plan, turn: int, probes: np.ndarray, best: Best) -> None:
        """Send rows to the cells of this turn, compare, and merge what comes back."""
        rows, places = np.nonzero(plan.turn[probes] == turn)
        cells = probes[rows, places]
        shuffle = Shuffle(self._exchange, plan.rank[cells])
        sides = shuffle.there(2 * cells + (places > 0))  # 2 c: at home in c, 2 c + 1: visits c
        vectors = shuffle.there(self._vectors, rows=rows)
        ids = shuffle.there(self._ids, rows=rows)
        lists = Best.empty(len(ids), best.k, shuffle.there(best.thresholds, rows=rows))

        order = np.argsort(sides, kind="stable")  # of one side in the order of their rows
        present, begins = np.unique(sides[order], return_index=True)
        members_of = {
            side: order[begin:end]
            for side, begin, end in zip(present.tolist(), begins, [*begins[1:], len(order)], strict=False)
        }
        nobody = order[:0]
        for side in members_of:
            if side % 2 == 0:
                self._compare_cell(vectors, ids, lists, members_of[side], members_of.get(side + 1, nobody))
        scores, names = shuffle.back(lists.scores), shuffle.back(lists.ids)
        for place in range(self._cells.nprobe):
            at = places == place
            _merge(best, rows[at], scores[at], names[at])

    def _compare_cell(
        self, vectors: np.ndarray, ids: np.ndarray, lists: Best, members: np.ndarray, visitors: np.ndarray
    ) -> None:
        """All pairs of two members, and of a member and a visitor; both in ascending order of their ids."""
        k, at_home = lists.k, vectors[members]
        own = Best.empty(len(members), k, lists.thresholds[members])
        self._comparison.within(Block(0, at_home, own))
        _put(lists, members, _named(own, ids[members]))
        if not len(visitors):
            return
        # Lists of their own: in one list rows stand in the order of their ids, which decides between equal scores.
        of_visitors = Best.empty(len(members), k, own.thresholds)
        theirs = Best.empty(len(visitors), k, lists.thresholds[visitors])
        self._comparison.across(Block(0, at_home, of_visitors), Block(0, vectors[visitors], theirs))
        _put(lists, visitors, _named(theirs, ids[members]))
        merged = _named(own, ids[members])
        merged.merge(_named(of_visitors, ids[visitors]))
        _put(lists, members, merged)

    def _complete(self, best: Best) -> int:
        """Compare rows that have fewer than k neighbours with all; gives how many there were on all ranks."""
        poor = np.flatnonzero(best.ids[:, -1] < 0)
        share = -(-QUERIES_AT_ONCE // self._comm.size)
        batches = self._comm.allreduce(-(-len(poor) // share), op=MPI.MAX)
        for number in range(batches):
            rows = poor[number * share : (number + 1) * share]
            _put(best, rows, self._best_of_all(rows, best.k))
        return int(self._comm.allreduce(len(poor)))

    def _recall(self, best: Best) -> tuple[float, int]:
        """The recall, and how many rows it is a mean of."""
        random = np.random.default_rng(self._cells.seed)
        sampled = spread_rows(self._rows, min(self._rows, RECALL_ROWS), random) - self._first_row
        here = sampled[(sampled >= 0) & (sampled < len(self._vectors))]
        exact = self._best_of_all(here, best.k)
        found = int(np.count_nonzero(best.scores[here] >= exact.scores[:, -1:]))
        return self._comm.allreduce(found) / (best.k * len(sampled)), len(sampled)

    def _best_of_all(self, rows: np.ndarray, k: int) -> Best:
        """The exact lists of some of this rank's rows; collective, each rank with rows of its own."""
        counts = np.array(self._comm.allgather(len(rows)))
        to_all = [counts[self._comm.rank]] * self._comm.size
        queries = self._exchange(np.tile(self._vectors[rows], (self._comm.size, 1)), np.array(to_all), counts)
        lists = Best.empty(len(queries), k + 1)  # one more, as a row meets itself
        block = Block(0, queries, lists)
        for start in range(0, len(self._vectors), ROWS_AT_ONCE):
            columns = self._vectors[start : start + ROWS_AT_ONCE]
            closed = Best.empty(len(columns), k + 1, np.full(len(columns), np.inf, np.float32))
            self._comparison.across(block, Block(self._first_row + start, columns, closed))
        scores, ids = (
            self._exchange(array, counts, np.array(to_all)).reshape(self._comm.size, len(rows), k + 1)
            for array in (lists.scores, lists.ids)
        )
        merged = Best.empty(len(rows), k + 1)
        for of_rank in zip(scores, ids, strict=True):
            merged.merge(Best(*of_rank, merged.thresholds))
        others = np.argsort(merged.ids == self._ids[rows][:, None], axis=1, kind="stable")[:, :k]
        return _list(*(np.take_along_axis(array, others, axis=1) for array in (merged.scores, merged.ids)))


@dataclass(frozen=True)
class Plan:
    """Which rank compares a cell, and when: int64 ``rank`` and ``turn`` of each; turn -1 where nothing is to do."""

    rank: np.ndarray
    turn: np.ndarray

    @property
    def turns(self) -> int:
        """How many turns there are."""
        return int(self.turn.max(initial=-1)) + 1

    @classmethod
    def of(cls, homes: np.ndarray, visits: np.ndarray, *, ranks: int, rows_at_once: int) -> Plan:
        """The largest cell first to whoever has least to do.

        :param rows_at_once: of a rank in a turn, unless one cell has more.
        :param homes, visits: rows at home in each cell, and those that only look there.
        """
        work = homes * (homes - 1) // 2 + homes * visits
        rank, turn = np.zeros(len(work), np.int64), np.full(len(work), -1, np.int64)
        least = [(0, number) for number in range(ranks)]
        held, now = np.zeros(ranks, np.int64), np.zeros(ranks, np.int64)
        for cell in np.argsort(-work, kind="stable").tolist():
            if not work[cell]:
                break
            done, owner = heapq.heappop(least)
            heapq.heappush(least, (done + int(work[cell]), owner))
            incoming = homes[cell] + visits[cell]
            if held[owner] and held[owner] + incoming > rows_at_once:
                now[owner] += 1
                held[owner] = 0
            held[owner] += incoming
            rank[cell], turn[cell] = owner, now[owner]
        return cls(rank, turn)


def _named(best: Best, names: np.ndarray) -> Best:
    """The same lists, with ``names[i]`` for row i."""
    return Best(best.scores, np.where(best.ids < 0, -1, names[best.ids]), best.thresholds)


def _list(scores: np.ndarray, ids: np.ndarray) -> Best:
    """Lists that are there already."""
    return Best(np.ascontiguousarray(scores), np.ascontiguousarray(ids), scores[:, -1].copy())


def _put(best: Best, rows: np.ndarray, lists: Best) -> None:
    best.scores[rows], best.ids[rows], best.thresholds[rows] = lists.scores, lists.ids, lists.thresholds


def _merge(best: Best, rows: np.ndarray, scores: np.ndarray, ids: np.ndarray) -> None:
    """Merge lists into those of different rows, which may hold some of the same neighbours."""
    into = Best(best.scores[rows], best.ids[rows], best.thresholds[rows])
    known = (ids[:, :, None] == into.ids[:, None, :]).any(axis=2)
    last = np.argsort(known, axis=1, kind="stable")
    scores = np.where(known, -np.inf, scores).astype(np.float32)
    into.merge(_list(np.take_along_axis(scores, last, axis=1), np.take_along_axis(ids, last, axis=1)))
    _put(best, rows, into)
