"""The summary reads what the batch published, and says when there is nothing to read."""

import json

import pytest

from tasks import results
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore
from tasks.summary import summarise


@pytest.fixture
def batch(s3_root: str) -> Batch:
    """A finished batch that was not learned from yet."""
    store, batch = ObjectStore(), Batch(s3_root, "b1")
    quality = {"total": {"records": 1200, "kept": 1000, "rejected": {"too_short": 199}, "quarantined": 1}}
    phase = {"name": "embed", "seconds": 12.4, "nodes": 2, "usd_on_demand": 0.01, "usd_spot": 0.004}
    cost = {
        "phases": [{**phase, "instance_type": "c7i.2xlarge"}],
        "total": {"usd_on_demand": 0.01, "usd_spot": 0.004},
        "basis": "Not a bill.",
    }
    for prefix, name, value, details in (
        ("quality", "quality.json", quality, {}),
        ("graph", "knn.json", {}, {"reads": 1000, "edges": 10_000, "k": 10}),
        ("clusters", "clusters.json", {}, {"clusters": 7}),
        ("cost", "cost.json", cost, {}),
        ("report", "index.html", {}, {}),
    ):
        results.publish(store, batch.results / prefix, {name: json.dumps(value).encode()}, details)
    store.put_json(batch.results / "embeddings" / "manifest.json", {"encoder": {"uri": "registry://e@v1-0"}})
    return batch


def test_the_numbers_are_those_of_the_results(batch: Batch) -> None:
    lines = dict(summarise(ObjectStore(), batch))
    assert lines["reads in"] == "1,200"
    assert lines["reads kept"] == "1,000 (199 too_short; 1 quarantined)"
    assert lines["neighbours"] == "10,000 (up to 10 for each read)"
    assert lines["clusters"] == "7"
    assert lines["embed"].startswith("12 s on 2 node(s); $0.0100 on demand")
    assert lines["encoder"] == "registry://e@v1-0; not retrained on this batch yet"


def test_the_share_of_verified_overlaps(batch: Batch) -> None:
    assert "overlaps" not in dict(summarise(ObjectStore(), batch))
    for pairs, overlaps, share, expected in (
        (8000, 6000, 0.75, "6,000 of 8,000 mutual neighbours (75.0%)"),
        (0, 0, None, "0 of 0 mutual neighbours"),
    ):
        details = {"pairs": pairs, "overlaps": overlaps, "share": share, "pairs_are": "mutual neighbours"}
        results.publish(ObjectStore(), batch.results / "overlaps", {}, details)
        assert dict(summarise(ObjectStore(), batch))["overlaps"] == expected


def test_the_encoder_before_and_after(batch: Batch) -> None:
    verdict = {
        "encoder_before": "registry://e@v1-0",
        "encoder_after": "registry://e@v2-1",
        "promoted": False,
        "reason": "not measurably better",
        "seconds": 30,
        "metrics": {"unlike_panels": {"bacteria": 0.0312}},
    }
    body = json.dumps(verdict).encode()
    results.publish(ObjectStore(), batch.results / "retraining", {"retraining.json": body}, {})
    lines = dict(summarise(ObjectStore(), batch))
    assert lines["encoder before"] == "registry://e@v1-0"
    assert lines["unlike panel bacteria"] == "3.1% of the reads"
    assert lines["encoder after"] == "registry://e@v2-1: not promoted (not measurably better)"


def test_an_unfinished_batch_is_no_summary(s3_root: str) -> None:
    with pytest.raises(StorageError, match="was never finished"):
        summarise(ObjectStore(), Batch(s3_root, "b1"))
