"""What is measured on a graph small enough to count by hand."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import results
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore
from tasks.report.neighbourhoods import COSINE_EDGES, measure
from tasks.report.sample import ReadSample

EDGES = [
    ("a:1", "a:2", 1, 0.9),
    ("a:1", "b:1", 2, 0.5),
    ("a:2", "a:1", 1, 0.9),
    ("a:2", "b:1", 2, 0.7),
    ("b:1", "a:2", 1, 0.7),
    ("b:1", "a:1", 2, 0.5),
    ("x:y:1/1", "a:1", 1, -1.0),
    ("x:y:1/1", "a:2", 2, -1.0),
]
CLUSTERS = {"a:1": 0, "a:2": 0, "b:1": 0, "x:y:1/1": 1}
GC = [0.4, 0.5, None, None]


def parquet(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


@pytest.fixture
def batch(s3_root: str) -> Batch:
    store, batch = ObjectStore(), Batch(s3_root, "one")
    names = ("read_id", "neighbour_id", "rank", "cosine")
    table = pa.table(dict(zip(names, zip(*EDGES, strict=True), strict=True)))
    table = table.set_column(3, "cosine", table["cosine"].cast(pa.float32()))
    files = {"graph-0.parquet": parquet(table[:3]), "graph-1.parquet": parquet(table[3:])}
    results.publish(store, batch.results / "graph", files, {})
    clusters = pa.table({"read_id": list(CLUSTERS), "cluster": pa.array(list(CLUSTERS.values()), pa.int32())})
    results.publish(store, batch.results / "clusters", {"clusters.parquet": parquet(clusters)}, {})
    return batch


@pytest.fixture
def sample() -> ReadSample:
    ids = pa.array(list(CLUSTERS))
    reads = pa.table({"read_id": ids, "length": pa.array([100, 110, 120, 90], pa.int32()), "gc": GC})
    return ReadSample(reads, ids[1:3], np.zeros((2, 4), np.float32), True)


def test_similarity(batch: Batch, sample: ReadSample) -> None:
    similarity = measure(ObjectStore(), batch, sample).similarity
    assert (similarity.edges, similarity.reads_with_neighbours) == (8, 4)
    assert similarity.nearest_mean == pytest.approx((0.9 + 0.9 + 0.7 - 1) / 4)
    assert similarity.all_histogram.sum() == 8
    low = np.flatnonzero(similarity.nearest_histogram)[0]
    assert (COSINE_EDGES[low], similarity.all_histogram[low]) == (-1, 2)


def test_clusters(batch: Batch, sample: ReadSample) -> None:
    graph = measure(ObjectStore(), batch, sample)
    first = graph.clusters[0]
    assert graph.sizes.tolist() == [3, 1]
    assert (first.number, first.reads, first.share) == (0, 3, 0.75)
    assert (first.sample, first.sample_share) == ("a", pytest.approx(2 / 3))
    assert (first.mean_length, first.mean_gc) == (110, pytest.approx(0.45))
    assert first.similarity == pytest.approx((0.9 + 0.5 + 0.9 + 0.7 + 0.7 + 0.5) / 6)
    assert graph.inside == 6 / 8
    assert graph.map_clusters.tolist() == [0, 0]


def test_what_is_not_known_of_a_cluster_is_none(batch: Batch, sample: ReadSample) -> None:
    second = measure(ObjectStore(), batch, sample).clusters[1]
    assert (second.sample, second.mean_length) == ("x:y", 90)
    assert second.mean_gc is None
    assert second.similarity is None


def test_a_read_without_a_cluster_is_an_error(batch: Batch, sample: ReadSample) -> None:
    clusters = pa.table({"read_id": ["a:1"], "cluster": pa.array([0], pa.int32())})
    results.publish(ObjectStore(), batch.results / "clusters", {"clusters.parquet": parquet(clusters)}, {})
    with pytest.raises(StorageError, match="lacks reads that the graph has"):
        measure(ObjectStore(), batch, sample)


def test_a_damaged_file_is_named(batch: Batch, sample: ReadSample) -> None:
    ObjectStore().put_bytes(batch.results / "graph" / "graph-1.parquet", b"damaged")
    with pytest.raises(StorageError, match=r"graph-1\.parquet does not have the SHA-256"):
        measure(ObjectStore(), batch, sample)
