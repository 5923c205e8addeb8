from __future__ import annotations

import pytest

from tasks.batches import Batch
from tasks.cluster_start import START_SECONDS, NothingToCompare, may_start_cluster
from tasks.object_store import ObjectStore


def test_the_cluster_starts_when_the_embedding_needs_no_longer_than_it(batch: Batch) -> None:
    store = ObjectStore()
    where = (batch.data_uri, batch.batch_id)
    assert not may_start_cluster(*where, embedding=None)  # nothing is known yet
    progress = batch.results / "progress.json"
    store.put_json(progress, {"status": "running", "percent": 1.0})
    assert not may_start_cluster(*where, embedding="running")
    store.put_json(progress, {"status": "running", "seconds_left": START_SECONDS + 1})
    assert not may_start_cluster(*where, embedding="deferred")
    store.put_json(progress, {"status": "running", "seconds_left": START_SECONDS})
    assert may_start_cluster(*where, embedding="deferred")


def test_it_starts_when_the_embeddings_are_there(batch: Batch) -> None:
    ObjectStore().put_json(batch.results / "embeddings" / "manifest.json", {})
    assert may_start_cluster(batch.data_uri, batch.batch_id, embedding="success")


def test_it_does_not_start_for_an_embedding_that_failed(batch: Batch) -> None:
    where = (batch.data_uri, batch.batch_id)
    assert not may_start_cluster(*where, embedding="up_for_retry")
    with pytest.raises(NothingToCompare, match="no cluster is started"):
        may_start_cluster(*where, embedding="failed")
