"""Pairs to align: the edges of a k-NN graph, each pair of reads once, divided among the ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from mpi4py import MPI

from hpc_jobs.neighbours import NeighbourManifest


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows of the embedding store: int64 ``first`` < ``second``, ordered; float32 ``similarity``."""

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def share_of_pairs(comm: MPI.Comm, directory: Path, manifest: NeighbourManifest, *, mutual: bool) -> Pairs:
    """This rank's share of the pairs of the k-NN result ``directory``; collective.

    Each rank reads some row groups and sends every edge to the rank that a hash of its two reads names: there
    both directions of a pair meet. Memory: some 100 bytes for each edge of a rank's share.

    :param mutual: only pairs of reads that each name the other as a neighbour.
    """
    low, high, score = _read(directory, manifest, comm.rank, comm.size)
    owner = owners(low, high, comm.size)
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=comm.size)
    arriving = np.empty_like(counts)
    comm.Alltoall(counts, arriving)
    low, high, score = (_exchanged(comm, column[order], counts, arriving) for column in (low, high, score))
    order = np.lexsort((high, low))
    low, high, score = low[order], high[order], score[order]
    second_time = 1 + np.flatnonzero((low[1:] == low[:-1]) & (high[1:] == high[:-1]))
    kept = second_time if mutual else np.delete(np.arange(len(low)), second_time)
    return Pairs(low[kept], high[kept], score[kept])


def owners(first: np.ndarray, second: np.ndarray, ranks: int) -> np.ndarray:
    """The rank of each pair, int64: even shares, however the rows of neighbours are spaced (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = first.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + second.astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed >> np.uint64(32)) % np.uint64(ranks)).astype(np.int64)


def _read(
    directory: Path, manifest: NeighbourManifest, rank: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower row, higher row and score of the edges in every ``size``-th row group from ``rank`` on."""
    columns: list[list[np.ndarray]] = []
    number = 0
    for part in manifest.files:
        with pq.ParquetFile(directory / part.name) as file:
            for group in range(file.num_row_groups):
                if number % size == rank:
                    table = file.read_row_group(group, columns=["query", "neighbour", "score"])
                    query, neighbour, score = (column.to_numpy() for column in table.columns)
                    columns.append([np.minimum(query, neighbour), np.maximum(query, neighbour), score])
                number += 1
    if not columns:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    low, high, score = (np.concatenate(column) for column in zip(*columns, strict=True))
    return low, high, score


def _exchanged(comm: MPI.Comm, column: np.ndarray, counts: np.ndarray, arriving: np.ndarray) -> np.ndarray:
    received = np.empty(int(arriving.sum()), column.dtype)
    kind = MPI.FLOAT if column.dtype == np.float32 else MPI.INT64_T
    comm.Alltoallv([column, counts, kind], [received, arriving, kind])
    return received
