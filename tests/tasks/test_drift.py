"""A batch beside earlier ones: what counts as earlier, what is a warning, and what is only chance."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import ks_2samp

from hpc_jobs.store import Shard, StoreManifest
from tasks import results
from tasks.batches import Batch
from tasks.drift.comparison import compare
from tasks.drift.history import LAST, earlier_profiles, remember
from tasks.drift.measure import measure_drift
from tasks.drift.profile import COSINE_EDGES, Profile
from tasks.errors import InvalidInput, StorageError
from tasks.object_store import ObjectStore
from tasks.plan import plan_batch

K, READS = 4, 2000


def cosines(centre: float = 0.9, *, reads: int = READS, seed: int = 1) -> np.ndarray:
    """Of each read and its nearest neighbour."""
    return np.clip(np.random.default_rng(seed).normal(centre, 0.03, reads), -1, 1).astype(np.float32)


@pytest.fixture
def publish(s3_root: str) -> Callable[..., Batch]:
    """Publish what drift is measured from, in two files; other neighbours than the nearest are farther."""

    def put(
        batch_id: str,
        nearest: np.ndarray,
        *,
        alone: int = 40,
        largest: int = 500,
        revision: str = "r1",
        k: int = K,
    ) -> Batch:
        store, batch = ObjectStore(), Batch(s3_root, batch_id)
        shards = (Shard("s-00000.parquet", len(nearest), 1, "0" * 64),)
        manifest = StoreManifest(len(nearest), 8, "float32", True, "registry://kmer-mlp@v1", revision, shards)
        store.put_json(batch.results / "embeddings" / "manifest.json", manifest.to_json())
        ranks = min(k, len(nearest) - 1)
        rank = np.repeat(np.arange(1, ranks + 1, dtype=np.int32), len(nearest))
        cosine = np.tile(nearest, ranks) - np.float32(0.1) * (rank - 1).astype(np.float32)
        edges = pa.table({"rank": rank, "cosine": cosine})
        half = len(edges) // 2
        files = {
            f"graph-0000{n}.parquet": parquet(part) for n, part in enumerate((edges[:half], edges[half:]))
        }
        results.publish(store, batch.results / "graph", files, {"reads": len(nearest), "k": k})
        clusters = {"clusters": alone + 12, "singletons": alone, "largest": largest}
        results.publish(store, batch.results / "clusters", {}, clusters)
        return batch

    return put


def parquet(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()


def measure(batch: Batch, threshold: float = 0.1) -> dict[str, Any]:
    return measure_drift(batch.data_uri, batch.batch_id, threshold=threshold)


def published(batch: Batch) -> dict[str, Any]:
    results.verify(ObjectStore(), batch.results / "drift")
    found: dict[str, Any] = ObjectStore().get_json(batch.results / "drift" / "drift.json")
    return found


def profile(cosines_by_rank: np.ndarray, **changes: Any) -> Profile:
    """Of the cosines of the nearest neighbour, float (reads,), or of several ranks, float (ranks, reads)."""
    by_rank = np.atleast_2d(cosines_by_rank)
    reads = by_rank.shape[1]
    usual = Profile(
        batch_id="b",
        measured_at="2026-11-20T08:00:00+00:00",
        encoder_uri="registry://kmer-mlp@v1",
        encoder_revision="r1",
        k=K,
        reads=reads,
        by_rank=tuple(tuple(np.histogram(row, COSINE_EDGES)[0].tolist()) for row in by_rank),
        alone=reads // 50,
        clusters=12,
        largest=reads // 4,
    )
    return replace(usual, **changes)


def neighbours_among(vectors: np.ndarray, k: int = 10) -> np.ndarray:
    """Cosines to the k nearest of each vector, by rank: float (k, reads)."""
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -2)
    nearest_first: np.ndarray = -np.sort(-cosine, axis=1)[:, :k].T
    return nearest_first


def test_the_profile_holds_the_nearest_neighbours_and_the_clusters(publish: Callable[..., Batch]) -> None:
    nearest = cosines()
    batch = publish("b1", nearest)
    measure(batch)
    measured = published(batch)["profile"]
    assert measured["by_rank"] == [
        np.histogram(nearest - np.float32(0.1) * rank, COSINE_EDGES)[0].tolist() for rank in range(K)
    ]
    fields = ("reads", "k", "alone", "clusters", "largest", "encoder_revision")
    assert [measured[name] for name in fields] == [READS, K, 40, 12, 500, "r1"]


def test_the_first_batch_gets_no_verdict(publish: Callable[..., Batch]) -> None:
    batch = publish("b1", cosines())
    summary = measure(batch)
    assert (summary["status"], summary["warning"], summary["earlier"]) == ("written", False, 0)
    assert summary["verdict"].startswith(
        "No verdict: batch b1 is the first with encoder registry://kmer-mlp@v1"
    )
    assert published(batch)["comparison"]["distance"] is None


def test_other_reads_of_the_same_kind_are_no_drift(publish: Callable[..., Batch]) -> None:
    for number in range(3):
        measure(publish(f"b{number}", cosines(seed=number)))
    today = publish("today", cosines(seed=9))
    summary = measure(today)
    assert (summary["warning"], summary["earlier"]) == (False, 3)
    distance = published(today)["comparison"]["distance"]
    assert summary["verdict"] == (
        "Batch today is like 3 earlier batches: at equal numbers of reads, nearest neighbours' similarities "
        f"differ for {distance['value']:.1%} of reads (a warning begins at {0.1 + distance['by_chance']:.1%})."
    )


def test_other_similarities_are_a_warning_in_shares_of_reads(publish: Callable[..., Batch]) -> None:
    before, today = cosines(), cosines(0.86, seed=2)
    measure(publish("b1", before))
    batch = publish("b2", today)
    summary = measure(batch)
    assert summary["warning"]
    distance = published(batch)["comparison"]["distance"]
    # Binned as the profile is, so that both see the same values.
    binned = [np.digitize(values, COSINE_EDGES) for values in (today, before)]
    assert distance["value"] == pytest.approx(ks_2samp(*binned).statistic)
    below = [float(np.mean(values < distance["cosine"])) for values in (today, before)]
    assert [distance["share"], distance["share_before"]] == pytest.approx(below, abs=1e-6)
    assert summary["verdict"] == (
        f"Batch b2 is unlike an earlier batch: at equal numbers of reads, {below[0]:.1%} have a nearest neighbour "
        f"of cosine below {distance['cosine']:.2f}, where {below[1]:.1%} had."
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"alone": 800}, "40.0% of its reads are named back by no neighbour, where 1.0% to 2.0% were"),
        ({"largest": 1200}, "60.0% of its reads are in the largest cluster, where 20.0% to 25.0% were"),
    ],
)
def test_a_share_far_outside_that_of_earlier_batches_is_a_warning(
    publish: Callable[..., Batch], changed: dict[str, int], words: str
) -> None:
    measure(publish("b1", cosines(seed=1)))
    measure(publish("b2", cosines(seed=2), alone=20, largest=400))
    summary = measure(publish("b3", cosines(seed=3), **changed))
    assert summary["warning"]
    assert summary["verdict"] == f"Batch b3 is unlike 2 earlier batches: {words}."


def test_the_threshold_decides(publish: Callable[..., Batch]) -> None:
    measure(publish("b1", cosines()))
    assert not measure(publish("b2", cosines(0.86, seed=2)), threshold=0.6)["warning"]
    with pytest.raises(InvalidInput, match="share of reads"):
        measure(publish("b3", cosines()), threshold=10)


def test_more_reads_of_the_same_are_no_drift_although_they_are_nearer() -> None:
    """A batch is thinned by arithmetic to what fewer of its reads give, measured with just those."""
    random = np.random.default_rng(0)
    vectors = np.repeat(random.normal(size=(40, 16)), 75, axis=0) + 0.3 * random.normal(size=(3000, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = profile(neighbours_among(vectors), batch_id="whole", k=10)
    fewer = profile(neighbours_among(random.permutation(vectors)[:1000]), batch_id="fewer", k=10)
    assert np.abs(np.cumsum(whole.nearest() - fewer.nearest())).max() > 0.15
    assert np.abs(np.cumsum(whole.nearest(among=1000) - fewer.nearest())).max() < 0.03
    for batch, other in ((whole, fewer), (fewer, whole)):
        comparison = compare(batch, [other], threshold=0.05)
        assert (comparison.warning, comparison.earlier) == (False, (other.batch_id,))


def test_batches_of_very_different_size_are_not_compared(publish: Callable[..., Batch]) -> None:
    measure(publish("b1", cosines(reads=200)))
    summary = measure(publish("b2", cosines()))
    assert (summary["warning"], summary["earlier"]) == (False, 0)
    assert summary["verdict"] == (
        "No verdict: batch b2 has 2,000 reads, and earlier ones 200 to 200: too different for a comparison."
    )
    assert measure(publish("b3", cosines(seed=3)))["earlier"] == 1


@pytest.mark.parametrize("reads", [50, 1000])
def test_chance_alone_seldom_warns(reads: int) -> None:
    """Reads in pairs of one cosine each, as mutual nearest neighbours are; no threshold beyond chance."""
    random = np.random.default_rng(0)

    def batch() -> Profile:
        pairs = random.normal(0.8, 0.05, reads // 2)
        return profile(np.repeat(pairs, 2), alone=int(random.binomial(reads, 0.1)), largest=reads // 4)

    warnings = [compare(batch(), [batch()], threshold=0).warning for _ in range(400)]
    assert sum(warnings) <= 4  # one percent


@pytest.mark.parametrize("other", [{"revision": "r2"}, {"k": K + 1}])
def test_versions_and_numbers_of_neighbours_are_never_mixed(
    publish: Callable[..., Batch], other: dict[str, Any]
) -> None:
    measure(publish("b1", cosines()))
    summary = measure(publish("b2", cosines(0.5), **other))
    assert (summary["warning"], summary["earlier"]) == (False, 0)
    assert "No verdict" in summary["verdict"]
    assert measure(publish("b3", cosines(seed=3)))["earlier"] == 1


def test_a_comparison_of_two_versions_is_refused() -> None:
    with pytest.raises(ValueError, match="not comparable"):
        compare(profile(cosines()), [profile(cosines(), encoder_revision="r2")], threshold=0.1)


def test_the_last_batches_count_in_the_order_of_time(store: ObjectStore, batch: Batch) -> None:
    """Not in the order of their names: a batch may be called anything."""
    for hour in range(LAST + 2):
        at = f"2026-11-20T{hour:02}:00:00+00:00"
        remember(store, batch.root, profile(cosines(), batch_id=f"soil-{20 - hour}", measured_at=at))
    found = earlier_profiles(store, batch.root, profile(cosines(), batch_id=batch.batch_id))
    assert [one.batch_id for one in found] == [f"soil-{20 - hour}" for hour in range(2, LAST + 2)]


def test_a_replaced_batch_is_not_compared_with_what_it_was(
    publish: Callable[..., Batch], request_of: Callable[..., Any], land: Callable[..., Any], batch: Batch
) -> None:
    """``replace_results`` forgets all of its results; what later batches are compared with is the new one."""
    land({"s": [b"@r\nACGT\n+\nIIII\n"]})
    measure(publish("other", cosines(seed=1)))
    measure(publish(batch.batch_id, cosines(0.5)))
    plan_batch(batch.data_uri, batch.batch_id, {**asdict(request_of()), "replace_results": True})
    summary = measure(publish(batch.batch_id, cosines(seed=2)))
    assert (summary["status"], summary["earlier"], summary["warning"]) == ("written", 1, False)
    assert measure(publish("later", cosines(seed=3)))["earlier"] == 2


def test_a_second_run_changes_nothing_and_remembers_what_was_not_yet(
    publish: Callable[..., Batch], store: ObjectStore
) -> None:
    """Whoever is interrupted between the two writes comes again."""
    batch = publish("b1", cosines())
    first = measure(batch)
    body = store.get_bytes(batch.results / "drift" / "drift.json")
    (entry,) = store.list(batch.root / "drift")
    remembered = store.get_bytes(entry.uri)
    store.delete(entry.uri)
    assert measure(batch, threshold=0.5) == {**first, "status": "unchanged"}
    assert store.get_bytes(batch.results / "drift" / "drift.json") == body
    assert store.get_bytes(entry.uri) == remembered


def test_a_single_read_has_no_verdict_and_is_no_earlier_batch(publish: Callable[..., Batch]) -> None:
    summary = measure(publish("b1", cosines(reads=1), alone=1, largest=1))
    assert summary["verdict"] == "No verdict: batch b1 has a single read."
    assert measure(publish("b2", cosines()))["earlier"] == 0


@pytest.mark.parametrize("result", ["graph", "clusters"])
def test_a_missing_result_is_named(publish: Callable[..., Batch], store: ObjectStore, result: str) -> None:
    batch = publish("b1", cosines())
    store.delete(batch.results / result / "manifest.json")
    with pytest.raises(StorageError, match=f"/{result} has no manifest.json"):
        measure(batch)


def test_a_damaged_graph_is_no_profile(publish: Callable[..., Batch], store: ObjectStore) -> None:
    batch = publish("b1", cosines())
    store.put_bytes(batch.results / "graph" / "graph-00001.parquet", b"PAR1")
    with pytest.raises(StorageError, match="SHA-256"):
        measure(batch)
    assert not list(store.list(batch.root / "drift"))
