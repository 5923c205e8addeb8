"""What a finished batch offers to learn from: its reads, its graph, and its chains, as rows of the reads."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import chains, results
from tasks.batches import Batch
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore, ObjectUri

MAX_READS = 1_000_000
"""That one training looks at; a million with ten edges each take about 2 GB."""


@dataclass(frozen=True)
class Edges:
    """Edges of the k-NN graph: rows of the reads, int64, and their cosine, float32."""

    query: np.ndarray
    neighbour: np.ndarray
    cosine: np.ndarray


@dataclass(frozen=True)
class Placements:
    """Reads on chains: their row, the number of their chain and their leftmost base on it, int64."""

    row: np.ndarray
    chain: np.ndarray
    offset: np.ndarray

    def of(self, rows: np.ndarray) -> Placements:
        """Those of ``rows`` (rising) alone, renumbered as their places in ``rows``."""
        among = np.isin(self.row, rows)
        return Placements(np.searchsorted(rows, self.row[among]), self.chain[among], self.offset[among])


def read_reads(store: ObjectStore, batch: Batch, limit: int = MAX_READS) -> pa.Table:
    """``read_id`` and ``sequence`` of the batch's reads, file by file until there are ``limit`` of them.

    :raises InvalidInput: the batch has no finished reads.
    """
    tables: list[pa.Table] = []
    rows = 0
    for file in _files(store, batch.results / "reads"):
        body = results.fetch(store, batch.results / "reads", file)
        tables.append(pq.read_table(io.BytesIO(body), columns=["read_id", "sequence"]))
        rows += tables[-1].num_rows
        if rows >= limit:
            break
    return pa.concat_tables(tables).slice(0, limit).combine_chunks()


def read_edges(store: ObjectStore, batch: Batch, read_ids: pa.ChunkedArray) -> Edges:
    """The edges between two of ``read_ids``; raises InvalidInput where the batch has no finished graph."""
    ids = read_ids.combine_chunks()
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for file in _files(store, batch.results / "graph"):
        body = results.fetch(store, batch.results / "graph", file)
        edges = pq.read_table(io.BytesIO(body), columns=["read_id", "neighbour_id", "cosine"])
        query, neighbour = (_rows(edges[name], ids) for name in ("read_id", "neighbour_id"))
        known = (query >= 0) & (neighbour >= 0)
        columns.append((query[known], neighbour[known], edges["cosine"].to_numpy()[known]))
    return Edges(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def read_placements(store: ObjectStore, batch: Batch, read_ids: pa.ChunkedArray) -> Placements:
    """Where those of ``read_ids`` lie that are on chains; none where the batch's pairs were not aligned."""
    placed = chains.read(store, batch)
    row = _rows(placed["read_id"], read_ids.combine_chunks())
    known = row >= 0
    return Placements(row[known], placed["chain"].to_numpy()[known], placed["offset"].to_numpy()[known])


def _rows(names: pa.ChunkedArray, read_ids: pa.Array) -> np.ndarray:
    """The row of each name in ``read_ids``, int64; -1 where it is none of them."""
    rows = pc.fill_null(pc.index_in(names.combine_chunks(), value_set=read_ids), -1)
    return np.asarray(rows.to_numpy(zero_copy_only=False), np.int64)


def _files(store: ObjectStore, prefix: ObjectUri) -> list[results.ResultFile]:
    manifest = results.find(store, prefix)
    if manifest is None or not manifest.files:
        raise InvalidInput(
            f"{prefix} has no finished result to learn from; run the batch's earlier steps first"
        )
    return [file for file in manifest.files if file.name.endswith(".parquet")]
