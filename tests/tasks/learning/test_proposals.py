from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tasks.batches import Batch
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.registry import Registry
from tasks.errors import InvalidInput
from tasks.learning.first_version import ensure_encoder
from tasks.learning.proposals import outcomes, promote_approved
from tasks.learning.request import training_jobs
from tasks.learning.retrain import retrain
from tasks.object_store import ObjectStore


@pytest.fixture
def proposed(
    small_plan: None,
    store: ObjectStore,
    batch: Batch,
    reads_of: Callable[..., pa.Table],
    publish_batch: Callable[..., None],
) -> list[dict[str, Any]]:
    """A better encoder that waits for a person."""
    reads = reads_of(600, length=100)
    before = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads)
    publish_batch(reads, before)
    summary = retrain(store, [batch], propose=True, steps=20)
    assert (summary["better"], summary["promoted"]) == (True, False), summary["reason"]
    assert summary["reason"].endswith("a person is to decide on its promotion")
    assert f"registry://kmer-mlp@{Registry(store, batch.encoders).current('kmer-mlp')}" == before
    return outcomes(training_jobs(batch.data_uri, batch.batch_id, []))


def test_an_approved_encoder_is_promoted_once(
    store: ObjectStore, batch: Batch, proposed: list[dict[str, Any]]
) -> None:
    after = proposed[0]["encoder_after"]
    for _ in range(2):
        assert promote_approved(proposed) == [f"{after} is current now"]
    registry = Registry(store, batch.encoders)
    *_, last = registry.moves("kmer-mlp")
    assert f"registry://kmer-mlp@{registry.current('kmer-mlp')}" == after
    assert last.reason.startswith("approved by a person; the candidate is better")
    assert len(registry.moves("kmer-mlp")) == 2


def test_an_approval_of_yesterday_does_not_undo_another_promotion(
    store: ObjectStore, batch: Batch, proposed: list[dict[str, Any]], tmp_path: Path
) -> None:
    registry = Registry(store, batch.encoders)
    KmerMlp().save(tmp_path)
    theirs = registry.register("kmer-mlp", tmp_path, {}, parent=None)
    assert registry.promote("kmer-mlp", theirs, expected=registry.current("kmer-mlp"))
    with pytest.raises(InvalidInput, match=f"not promoted, because {theirs} took the place of"):
        promote_approved(proposed)
    assert registry.current("kmer-mlp") == theirs


def test_a_training_that_never_ended_has_no_outcome(batch: Batch) -> None:
    other = replace(batch, batch_id="2026-11-21")
    assert outcomes(training_jobs(other.data_uri, other.batch_id, [])) == []
