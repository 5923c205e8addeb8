"""Mutual neighbours: the edges of a k-NN graph that both of their reads agree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Edges:
    """Undirected edges, each once: int64 rows ``first`` < ``second``, and float32 ``weight`` above 0."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray


def mutual_edges(query: np.ndarray, neighbour: np.ndarray, score: np.ndarray) -> Edges:
    """Keep the pairs that appear in both directions and have a positive cosine; the cosine is their weight.

    A read in a crowd is the neighbour of many that it would not choose itself; such one-sided edges join
    communities that have little in common. Order of the result: by first, then second row.

    :param query: int64 rows; with ``neighbour`` each ordered pair at most once, and never a row with itself.
    :param score: float32, the same in both directions.
    """
    low, high = np.minimum(query, neighbour), np.maximum(query, neighbour)
    order = np.lexsort((high, low))
    low, high = low[order], high[order]
    twice = np.flatnonzero((low[1:] == low[:-1]) & (high[1:] == high[:-1]))
    weight = score[order[twice]]
    positive = weight > 0
    twice = twice[positive]
    return Edges(low[twice], high[twice], weight[positive])
