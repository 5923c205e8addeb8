"""Reads and vectors that stand for the batch on its page.

A batch of up to :data:`SAMPLE_READS` reads is taken whole. A larger one is represented by at most
:data:`MAX_SHARDS` shards, evenly spaced over all of them (and so over the samples), and by rows drawn at
random with a fixed seed from each. Shards are fetched one at a time, so memory stays near one shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpc_jobs.store import StoreManifest, vectors_of
from tasks import results
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore
from tasks.results import ResultFile

SAMPLE_READS = 100_000
MAX_SHARDS = 32
MAP_READS = 3_000
"""Points of the map: t-SNE of 3,000 takes about 6 s on one core, and more points hide each other."""


@dataclass(frozen=True)
class ReadSample:
    """Kept reads that measures of clusters rest on, and the fewer ones that are drawn.

    :param reads: columns read_id (string), length (int32, bases), gc (float64, fraction of A, C, G and T; null
        where a read has none of them).
    :param map_ids: string array of m read ids.
    :param map_vectors: float32 (m, dim), row for row the vectors of ``map_ids``.
    :param is_whole: the sample is all of the batch.
    """

    reads: pa.Table
    map_ids: pa.Array
    map_vectors: np.ndarray
    is_whole: bool


def take_sample(store: ObjectStore, batch: Batch, manifest: StoreManifest) -> ReadSample:
    """Draw the sample; the same batch gives the same one.

    :raises StorageError: reads/ is not finished, or its shards do not fit those of the embedding store.
    """
    known = results.find(store, batch.results / "reads")
    if known is None:
        raise StorageError(f"{batch.results / 'reads'} has no manifest.json: the embed job did not finish")
    files = {file.name: file for file in known.files}
    shards = [manifest.shards[position] for position in _evenly(len(manifest.shards), MAX_SHARDS)]
    rng = np.random.default_rng(0)
    rows = sum(shard.rows for shard in shards)
    chosen = np.sort(rng.choice(rows, size=min(rows, SAMPLE_READS), replace=False))
    drawn = np.sort(rng.choice(chosen, size=min(len(chosen), MAP_READS), replace=False))
    tables, map_ids, map_vectors = [], [], []
    start = 0
    for shard in shards:
        if shard.name not in files:
            raise StorageError(f"{batch.results / 'reads'} does not name {shard.name}, the embeddings do")
        reads = _read_columns(store, batch, files[shard.name])
        own = chosen[(start <= chosen) & (chosen < start + shard.rows)] - start
        tables.append(reads.take(own))
        own = drawn[(start <= drawn) & (drawn < start + shard.rows)] - start
        if len(own):
            body = results.fetch(
                store, batch.results / "embeddings", ResultFile(shard.name, shard.bytes, shard.sha256)
            )
            table = pq.read_table(pa.BufferReader(body)).take(own).combine_chunks()
            [embedded] = table.to_batches()
            ids = reads["read_id"].take(own).combine_chunks()
            if not embedded["read_id"].equals(ids):
                raise StorageError(
                    f"{shard.name} holds other reads in reads/ than in embeddings/; clear the embed task"
                )
            map_ids.append(ids)
            map_vectors.append(vectors_of(embedded, manifest))
        start += shard.rows
    return ReadSample(
        reads=pa.concat_tables(tables),
        map_ids=pa.concat_arrays(map_ids),
        map_vectors=np.concatenate(map_vectors),
        is_whole=len(chosen) == manifest.rows,
    )


def lay_out(vectors: np.ndarray) -> np.ndarray:
    """Two coordinates per vector, near vectors near each other: float32 (n, 2).

    t-SNE from a PCA start with a fixed seed, on one thread, because its parallel sums are not repeatable bit
    by bit. Fewer than eight vectors, or vectors that are all equal, are shown by their first components.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    start = _principal_components(vectors)
    spread = float(start[:, 0].std())
    # The start is scaled here and not by scikit-learn, which divides by a spread of 0 and then crashes.
    if len(vectors) < 8 or spread < 1e-6:
        return start
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    with threadpool_limits(limits=1):
        model = TSNE(init=start / spread * 1e-4, perplexity=perplexity, max_iter=500, random_state=0)
        return model.fit_transform(vectors)


def _principal_components(vectors: np.ndarray) -> np.ndarray:
    centred = vectors - vectors.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    coordinates = np.zeros((len(vectors), 2), np.float32)
    known = min(2, len(lengths))
    coordinates[:, :known] = left[:, :known] * lengths[:known]
    return coordinates


def _read_columns(store: ObjectStore, batch: Batch, file: ResultFile) -> pa.Table:
    body = results.fetch(store, batch.results / "reads", file)
    table = pq.read_table(pa.BufferReader(body), columns=["read_id", "sequence", "length"])
    sequence = table["sequence"]
    strong, weak = (
        pc.add(pc.count_substring(sequence, first), pc.count_substring(sequence, second))
        for first, second in ("GC", "AT")
    )
    known = pc.add(strong, weak).cast(pa.float64())
    gc = pc.divide(strong.cast(pa.float64()), pc.if_else(pc.equal(known, 0), None, known))
    return pa.table({"read_id": table["read_id"], "length": table["length"], "gc": gc})


def _evenly(count: int, most: int) -> list[int]:
    """Up to ``most`` of the positions 0 to ``count`` - 1, evenly spaced."""
    taken = min(count, most)
    return [position * count // taken for position in range(taken)]
