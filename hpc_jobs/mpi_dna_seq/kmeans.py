"""Cells: k-means on a sample of the rows, the same for every number of ranks.

A row's nearest centroids are found by the kernel itself, exactly and in its order (score, number), and sums of rows
are sums of integers, which no order of additions changes.
"""

from __future__ import annotations

import math

import numpy as np
from mpi4py import MPI

from hpc_jobs.mpi_dna_seq.tiles import Best, Block, Comparison

ITERATIONS = 10
SAMPLE_A_CELL = 64
ROWS_AT_ONCE = 16_384


def train(
    comm: MPI.Comm,
    vectors: np.ndarray,
    *,
    first_row: int,
    rows: int,
    cells: int,
    seed: int,
    unit: bool,
    comparison: Comparison,
) -> np.ndarray:
    """Centroids, float32 (cells, dim), the same on every rank; collective.

    Lloyd's algorithm from ``cells`` sampled rows, on 64 rows a cell or all there are. A cell that nothing is
    nearest to keeps its centroid.

    :param vectors: this rank's rows, from ``first_row`` on, of all ``rows``.
    :param unit: centroids are brought to length 1, as the vectors are (spherical k-means).
    """
    random = np.random.default_rng(seed)
    sampled = spread_rows(rows, min(rows, SAMPLE_A_CELL * cells), random)
    chosen = np.sort(random.permutation(len(sampled))[:cells])
    here = slice(*np.searchsorted(sampled, [first_row, first_row + len(vectors)]))
    sample = vectors[sampled[here] - first_row]
    centroids = _gathered(comm, vectors, first_row, sampled[chosen])
    scale = _scale(comm, sample, len(sampled))
    for _ in range(ITERATIONS):
        nearest = nearest_cells(sample, centroids, 1, comparison)[:, 0]
        sums, counts = _sums(sample, nearest, cells, scale)
        comm.Allreduce(MPI.IN_PLACE, sums)
        comm.Allreduce(MPI.IN_PLACE, counts)
        centroids = _means(sums, counts, centroids, scale=scale, unit=unit)
        comm.Bcast(centroids)  # equal integers, but maybe other processors
    return centroids


def training_pairs(rows: int, cells: int) -> int:
    """Pairs of a sampled row and a centroid that :func:`train` compares."""
    return ITERATIONS * min(rows, SAMPLE_A_CELL * cells) * cells


def nearest_cells(
    vectors: np.ndarray, centroids: np.ndarray, count: int, comparison: Comparison
) -> np.ndarray:
    """The ``count`` nearest centroids of each row, nearest first, equal ones by number: int64 (rows, count)."""
    found = np.empty((len(vectors), count), np.int64)
    closed = Best.empty(len(centroids), count, np.full(len(centroids), np.inf, np.float32))
    columns = Block(0, centroids, closed)  # centroids look for nothing
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        rows = np.ascontiguousarray(vectors[start : start + ROWS_AT_ONCE])
        lists = Best.empty(len(rows), count)
        comparison.across(Block(0, rows, lists), columns)
        found[start : start + len(rows)] = lists.ids
    return found


def spread_rows(rows: int, count: int, random: np.random.Generator) -> np.ndarray:
    """``count`` different rows, ascending, one from each of as many equal parts of all rows."""
    bounds = np.arange(count + 1, dtype=np.int64) * rows // max(count, 1)
    return bounds[:-1] + (random.random(count) * np.diff(bounds)).astype(np.int64)


def _gathered(comm: MPI.Comm, vectors: np.ndarray, first_row: int, wanted: np.ndarray) -> np.ndarray:
    """The vectors of these rows, each of which is on one rank, on every rank."""
    found = np.zeros((len(wanted), vectors.shape[1]), np.float32)
    here = (wanted >= first_row) & (wanted < first_row + len(vectors))
    found[here] = vectors[wanted[here] - first_row]
    comm.Allreduce(MPI.IN_PLACE, found)
    return found


def _scale(comm: MPI.Comm, sample: np.ndarray, rows: int) -> float:
    """A power of two by which components become integers whose sum over the sample fits 62 bits."""
    largest = comm.allreduce(float(np.abs(sample).max(initial=0)), op=MPI.MAX)
    return 2.0 ** (62 - math.ceil(math.log2(rows)) - max(math.frexp(largest)[1], -100)) if rows else 1.0


def _sums(sample: np.ndarray, nearest: np.ndarray, cells: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the rows of each cell as multiples of 1 / scale, int64 (cells, dim), and their number."""
    sums = np.zeros((cells, sample.shape[1]), np.int64)
    order = np.argsort(nearest, kind="stable")
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]
        present, begins = np.unique(nearest[rows], return_index=True)
        integers = np.rint(sample[rows].astype(np.float64) * scale).astype(np.int64)
        sums[present] += np.add.reduceat(integers, begins, axis=0)
    return sums, np.bincount(nearest, minlength=cells)


def _means(
    sums: np.ndarray, counts: np.ndarray, former: np.ndarray, *, scale: float, unit: bool
) -> np.ndarray:
    means = sums / scale / np.maximum(counts, 1)[:, None]
    kept = counts == 0
    if unit:
        lengths = np.linalg.norm(means, axis=1)
        kept |= lengths == 0
        means /= np.where(lengths == 0, 1, lengths)[:, None]
    return np.where(kept[:, None], former, means).astype(np.float32)
