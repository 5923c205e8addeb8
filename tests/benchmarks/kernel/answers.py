"""Whether two searches found the same neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from hpc_jobs import neighbours

TIE = 1e-5
"""Cosines nearer to each other than this are a tie to a search in float32, which may then take either."""
ROWS_AT_ONCE = 4096


def our_answer(directory: Path) -> tuple[np.ndarray, np.ndarray]:
    """Neighbour rows and scores of a finished result, each (rows, k); raises NeighboursError where it is none."""
    manifest = neighbours.verify(directory)
    table = pq.read_table(
        [directory / part.name for part in manifest.files], columns=["query", "neighbour", "score"]
    )
    shape = (manifest.rows, -1)
    queries = table["query"].to_numpy().reshape(shape)
    assert (queries == np.arange(manifest.rows)[:, None]).all(), "a query is missing, or not in its place"
    return table["neighbour"].to_numpy().reshape(shape), table["score"].to_numpy().reshape(shape)


def cosines(vectors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Of each row with its neighbours, float64 (rows, k); an id below 0 is no neighbour, and gives -2."""
    found = np.empty(ids.shape)
    for start in range(0, len(ids), ROWS_AT_ONCE):
        stop = start + ROWS_AT_ONCE
        theirs = vectors[ids[start:stop]].astype(np.float64)
        found[start:stop] = np.einsum("rd,rkd->rk", vectors[start:stop].astype(np.float64), theirs)
    return np.where(ids < 0, -2, found)


def worst_loss(vectors: np.ndarray, best: np.ndarray, ids: np.ndarray) -> float:
    """How far the cosines of ``ids`` stay behind those of ``best``, rank by rank, at worst; 0 where nowhere.

    :param best: neighbours of an exact search, (rows, k); ``ids`` those to judge, of the same shape.
    """
    ours, theirs = _ranked(cosines(vectors, best)), _ranked(_once(vectors, ids))
    return float(max((ours - theirs).max(initial=0), 0))


def recall(vectors: np.ndarray, best: np.ndarray, ids: np.ndarray) -> float:
    """Share of ``ids`` that are as near as the last of ``best``, so that ties count as found."""
    last = cosines(vectors, best).min(axis=1, keepdims=True)
    return float((_once(vectors, ids) >= last - TIE).mean())


def _once(vectors: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Cosines of the neighbours, where the second mention of one counts as none."""
    order = np.argsort(ids, axis=1, kind="stable")
    in_order = np.take_along_axis(ids, order, axis=1)
    again = np.zeros(ids.shape, bool)
    again[:, 1:] = in_order[:, 1:] == in_order[:, :-1]
    repeated = np.empty_like(again)
    np.put_along_axis(repeated, order, again, axis=1)
    return np.where(repeated, -2, cosines(vectors, ids))


def _ranked(scores: np.ndarray) -> np.ndarray:
    return -np.sort(-scores, axis=1)
