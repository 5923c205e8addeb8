"""What the similarity graph and its clusters look like, measured in two streaming passes.

Histograms of similarity and sizes of clusters are exact whatever the size of the batch. What needs the reads
themselves (length, GC, similarity within a cluster) rests on the :class:`~tasks.report.sample.ReadSample`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import results
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore, ObjectUri
from tasks.report.sample import ReadSample

SHOWN_CLUSTERS = 20
BATCH_ROWS = 1 << 20
COSINE_EDGES = np.linspace(-1, 1, 401)
"""Bins of 0.005."""


@dataclass(frozen=True)
class Similarity:
    """Cosines of all edges of the graph, and of the nearest neighbours only.

    :param all_histogram: int64[400] over :data:`COSINE_EDGES`.
    :param nearest_histogram: the same, of the edges of rank 1.
    :param nearest_mean: mean cosine to the nearest neighbour; None where no read has one.
    """

    edges: int
    reads_with_neighbours: int
    all_histogram: np.ndarray
    nearest_histogram: np.ndarray
    nearest_mean: float | None


@dataclass(frozen=True)
class Cluster:
    """One row of the table of clusters.

    :param share: fraction of all reads.
    :param sample: the sample that most of its reads are from, and ``sample_share`` the fraction that are.
    :param mean_length: bases; this, ``mean_gc`` (fraction) and ``similarity`` (mean cosine of neighbours that
        are both in the cluster) are None where the read sample has nothing to say about the cluster.
    """

    number: int
    reads: int
    share: float
    sample: str
    sample_share: float
    mean_length: float | None
    mean_gc: float | None
    similarity: float | None


@dataclass(frozen=True)
class Neighbourhoods:
    """The graph and its clusters.

    :param sizes: reads per cluster, int64, by cluster number (0 is the largest).
    :param clusters: the first :data:`SHOWN_CLUSTERS`.
    :param inside: fraction of the sampled reads' neighbours that are in the read's own cluster, or None.
    :param map_clusters: int32, the cluster of each read of the map.
    """

    similarity: Similarity
    sizes: np.ndarray
    clusters: list[Cluster]
    inside: float | None
    map_clusters: np.ndarray


def measure(store: ObjectStore, batch: Batch, sample: ReadSample) -> Neighbourhoods:
    """Stream graph/ and clusters/ of the batch; raises StorageError where one is missing or damaged."""
    sampled = sample.reads["read_id"].combine_chunks()
    similarity, edges = _stream_graph(store, batch.results / "graph", sampled)
    ids = pc.unique(pa.chunked_array([sampled, *edges["neighbour_id"].chunks], pa.string()))
    sizes, origins, cluster_of = _stream_clusters(store, batch.results / "clusters", ids)

    own = cluster_of[pc.index_in(sample.reads["read_id"], ids).to_numpy()]
    here = cluster_of[pc.index_in(edges["read_id"], ids).to_numpy()]
    there = cluster_of[pc.index_in(edges["neighbour_id"], ids).to_numpy()]
    if (min(own.min(initial=0), there.min(initial=0))) < 0:
        raise StorageError(f"{batch.results / 'clusters'} lacks reads that the graph has; clear its tasks")
    inside = here == there
    lengths = _means(own, sample.reads["length"].to_numpy())
    gc = _means(own, sample.reads["gc"].to_numpy())
    within = _means(here[inside], edges["cosine"].to_numpy()[inside])
    clusters = []
    for number, origin in sorted(origins.items()):
        name, most = max(origin.items(), key=lambda item: (item[1], item[0]))
        reads = int(sizes[number])
        clusters.append(
            Cluster(
                number=number,
                reads=reads,
                share=reads / int(sizes.sum()),
                sample=name,
                sample_share=most / reads,
                mean_length=lengths.get(number),
                mean_gc=gc.get(number),
                similarity=within.get(number),
            )
        )
    return Neighbourhoods(
        similarity=similarity,
        sizes=sizes,
        clusters=clusters,
        inside=float(inside.mean()) if len(inside) else None,
        map_clusters=cluster_of[pc.index_in(sample.map_ids, ids).to_numpy()],
    )


def _stream_graph(store: ObjectStore, prefix: ObjectUri, sampled: pa.Array) -> tuple[Similarity, pa.Table]:
    """Histograms of all edges, and the edges that start at a sampled read."""
    bins = len(COSINE_EDGES) - 1
    every, nearest = np.zeros(bins, np.int64), np.zeros(bins, np.int64)
    nearest_sum, kept = 0.0, []
    for edges in _stream(store, prefix, ["read_id", "neighbour_id", "rank", "cosine"]):
        cosine = np.clip(edges["cosine"].to_numpy(), -1, 1)
        first = cosine[edges["rank"].to_numpy() == 1]
        every += np.histogram(cosine, COSINE_EDGES)[0]
        nearest += np.histogram(first, COSINE_EDGES)[0]
        nearest_sum += float(first.sum(dtype=np.float64))
        kept.append(edges.filter(pc.is_in(edges["read_id"], sampled)))
    schema = pa.schema([("read_id", pa.string()), ("neighbour_id", pa.string()), ("cosine", pa.float32())])
    columns = [table.select(schema.names).cast(schema) for table in kept]
    reads = int(nearest.sum())
    similarity = Similarity(
        edges=int(every.sum()),
        reads_with_neighbours=reads,
        all_histogram=every,
        nearest_histogram=nearest,
        nearest_mean=nearest_sum / reads if reads else None,
    )
    return similarity, pa.concat_tables([schema.empty_table(), *columns])


def _stream_clusters(
    store: ObjectStore, prefix: ObjectUri, ids: pa.Array
) -> tuple[np.ndarray, dict[int, Counter[str]], np.ndarray]:
    """Sizes of all clusters, reads per sample of the shown ones, and the cluster of each of ``ids`` (or -1)."""
    sizes = np.zeros(0, np.int64)
    origins: dict[int, Counter[str]] = {}
    cluster_of = np.full(len(ids), -1, np.int32)
    for table in _stream(store, prefix, ["read_id", "cluster"]):
        cluster = table["cluster"].to_numpy()
        counted = np.bincount(cluster, minlength=len(sizes))
        counted[: len(sizes)] += sizes
        sizes = counted
        place = pc.index_in(table["read_id"], ids)
        known = pc.is_valid(place).to_numpy()
        cluster_of[pc.drop_null(place).to_numpy()] = cluster[known]
        shown = table.filter(pc.less(table["cluster"], SHOWN_CLUSTERS))
        # A read id is <sample>:<record number>[/mate][@offset]; a sample name may hold a colon, the rest does not.
        parts = pc.split_pattern(shown["read_id"], ":", max_splits=1, reverse=True)
        named = pa.table({"cluster": shown["cluster"], "sample": pc.list_element(parts, 0)})
        for row in named.group_by(["cluster", "sample"]).aggregate([([], "count_all")]).to_pylist():
            origins.setdefault(row["cluster"], Counter())[row["sample"]] += row["count_all"]
    return sizes, origins, cluster_of


def _stream(store: ObjectStore, prefix: ObjectUri, columns: list[str]) -> Iterator[pa.Table]:
    """The result's Parquet files, checked, in tables of at most :data:`BATCH_ROWS` rows."""
    manifest = results.find(store, prefix)
    if manifest is None:
        raise StorageError(f"{prefix} has no manifest.json: the collect job did not finish")
    for file in manifest.files:
        if not file.name.endswith(".parquet"):
            continue
        with TemporaryDirectory(prefix="strandloop-report-") as directory:
            path = Path(directory) / "part.parquet"
            if store.download(prefix / file.name, path) != file.sha256:
                raise StorageError(
                    f"{prefix / file.name} does not have the SHA-256 that its manifest records"
                )
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(BATCH_ROWS, columns=columns):
                    yield pa.table(batch)


def _means(groups: np.ndarray, values: np.ndarray) -> dict[int, float]:
    """Mean value per group; values that are not numbers do not count."""
    known = np.isfinite(values)
    counts = np.bincount(groups[known])
    sums = np.bincount(groups[known], weights=values[known])
    return {int(group): float(sums[group] / counts[group]) for group in np.flatnonzero(counts)}
