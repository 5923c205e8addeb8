"""Which reads stand for a batch, and where they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hpc_jobs.store import StoreManifest
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore
from tasks.report import sample as sampling
from tasks.report.neighbourhoods import measure
from tasks.report.sample import ReadSample, lay_out, take_sample


def draw(demo: Any) -> tuple[ObjectStore, Batch, ReadSample]:
    store, batch = ObjectStore(), Batch(demo.data_uri, demo.batch_id)
    manifest = StoreManifest.from_json(store.get_json(batch.results / "embeddings" / "manifest.json"))
    return store, batch, take_sample(store, batch, manifest)


def test_a_small_batch_is_taken_whole(finished_batch: Any) -> None:
    _, _, sample = draw(finished_batch)
    assert sample.is_whole
    assert sample.reads["read_id"].to_pylist() == finished_batch.kept_ids
    assert sample.map_ids.to_pylist() == finished_batch.kept_ids
    assert sample.map_vectors.shape == (len(finished_batch.kept_ids), 64)
    assert 0.3 < np.mean(sample.reads["gc"].to_numpy()) < 0.7


def test_a_large_batch_is_sampled_and_its_graph_measured_whole(
    finished_batch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "SAMPLE_READS", 60)
    monkeypatch.setattr(sampling, "MAP_READS", 25)
    monkeypatch.setattr(sampling, "MAX_SHARDS", 2)
    store, batch, sample = draw(finished_batch)
    assert not sample.is_whole
    assert (len(sample.reads), len(sample.map_ids), len(sample.map_vectors)) == (60, 25, 25)
    assert set(sample.map_ids.to_pylist()) <= set(sample.reads["read_id"].to_pylist())
    assert draw(finished_batch)[2].reads.equals(sample.reads)

    graph = measure(store, batch, sample)
    assert graph.similarity.edges == finished_batch.edges == graph.similarity.all_histogram.sum()
    assert graph.similarity.reads_with_neighbours == len(finished_batch.kept_ids)
    assert graph.sizes.tolist() == finished_batch.cluster_sizes
    assert [cluster.reads for cluster in graph.clusters] == finished_batch.cluster_sizes[:20]


def test_reads_of_another_embedding_are_refused(
    publish_batch: Callable[..., Any], simulate: Callable[..., str]
) -> None:
    demo = publish_batch({"tiny": simulate(5, [0.5], seed=4, flawless=True)})
    store, batch = ObjectStore(), Batch(demo.data_uri, demo.batch_id)
    uri = batch.results / "embeddings" / "manifest.json"
    manifest = store.get_json(uri)
    manifest["shards"][0]["name"] = "other-00000.parquet"
    store.put_json(uri, manifest)
    with pytest.raises(StorageError, match=r"does not name other-00000\.parquet"):
        draw(demo)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 30])
def test_the_map_has_a_finite_place_for_every_vector(count: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)
    places = lay_out(vectors)
    assert places.shape == (count, 2)
    assert np.isfinite(places).all()


@pytest.mark.parametrize("different", [0, 1, 2, 20])
def test_equal_vectors_have_places_too(different: int) -> None:
    vectors = np.full((40, 16), 0.25, np.float32)
    vectors[:different] = np.random.default_rng(0).normal(size=(different, 16))
    assert np.isfinite(lay_out(vectors)).all()


def test_groups_of_vectors_stay_together() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1, 2], 30)
    vectors = (4 * np.eye(3, 16)[group] + 0.3 * rng.normal(size=(90, 16))).astype(np.float32)
    places = lay_out(vectors)
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (group[distances.argmin(axis=1)] == group).all()
