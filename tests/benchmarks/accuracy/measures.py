"""How well vectors tell species apart, and find overlaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from hpc_jobs.read_graph.communities import find_communities
from hpc_jobs.read_graph.mutual import mutual_edges
from tests.benchmarks.accuracy.reads import Reads

K = 10
QUERIES = 2_000
"""Reads of the batch whose overlaps are looked for."""
SHORTEST_OVERLAP = 50
BLOCK_ROWS = 512


@dataclass(frozen=True)
class Apart:
    """How well species are told apart.

    :param first, ten: share of the nearest neighbours, and of the ten nearest, that are of the read's species.
    :param ari: adjusted Rand index of species and clusters: Leiden communities of the mutual ten nearest.
    :param ari_k_means: the same of as many clusters as there are species, by k-means, which is told their number.
    :param purity: share of the mutual edges that join reads of one species.
    """

    first: float
    ten: float
    ari: float
    ari_k_means: float
    purity: float


def apart(vectors: np.ndarray, species: np.ndarray) -> Apart:
    """Compare all reads with all others.

    :param vectors: unit vectors, float32 (reads, dim).
    """
    rows = np.arange(len(vectors))
    found, scores = nearest(vectors, rows)
    same = species[found] == species[:, None]
    edges = mutual_edges(np.repeat(rows, K), found.ravel(), scores.ravel())
    labels = find_communities(len(vectors), edges).labels
    by_k_means = KMeans(len(set(species.tolist())), n_init=5, random_state=1).fit_predict(vectors)
    return Apart(
        float(same[:, 0].mean()),
        float(same.mean()),
        float(adjusted_rand_score(species, labels)),
        float(adjusted_rand_score(species, by_k_means)),
        float((species[edges.first] == species[edges.second]).mean()),
    )


def nearest(vectors: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and cosines of the ten nearest of all other vectors to those of rows ``queries``, nearest first."""
    ids = np.empty((len(queries), K), np.int64)
    scores = np.empty((len(queries), K), np.float32)
    for start in range(0, len(queries), BLOCK_ROWS):
        rows = queries[start : start + BLOCK_ROWS]
        block = vectors[rows] @ vectors.T
        here = np.arange(len(rows))
        block[here, rows] = -np.inf
        best = np.argpartition(block, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(block, best, axis=1), axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        ids[start : start + BLOCK_ROWS] = best
        scores[start : start + BLOCK_ROWS] = np.take_along_axis(block, best, axis=1)
    return ids, scores


@dataclass(frozen=True)
class TrueOverlaps:
    """The overlaps of :data:`QUERIES` reads of a batch, by where they were sequenced.

    :param queries: rows of the reads.
    :param overlapping: of each query the rows of all reads that share 50 bases or more with it.
    """

    queries: np.ndarray
    overlapping: list[set[int]]

    @classmethod
    def of(cls, reads: Reads, *, seed: int) -> TrueOverlaps:
        """Of reads drawn at random; those without an overlap are left out."""
        drawn = np.random.default_rng(seed).choice(len(reads), min(QUERIES, len(reads)), replace=False)
        order = np.lexsort((reads.begin, reads.stretch))
        far = int(reads.begin.max()) + 1_000_000  # so that no two stretches are near
        place = reads.stretch * far + reads.begin
        placed = place[order]
        reach = int(reads.sequences.lengths.max()) - SHORTEST_OVERLAP
        low = np.searchsorted(placed, place[drawn] - reach)
        high = np.searchsorted(placed, place[drawn] + reach, side="right")
        found = [
            set(order[a:b].tolist()) - {row} for row, a, b in zip(drawn.tolist(), low, high, strict=True)
        ]
        kept = [number for number, rows in enumerate(found) if rows]
        return cls(drawn[kept], [found[number] for number in kept])

    def recall(self, neighbours: np.ndarray) -> float:
        """Share of the overlaps that ten neighbours can hold which they do hold.

        :param neighbours: rows (queries, up to 10); -1 for none.
        """
        found = sum(
            len(rows & set(own)) for rows, own in zip(self.overlapping, neighbours.tolist(), strict=True)
        )
        return found / sum(min(K, len(rows)) for rows in self.overlapping)
