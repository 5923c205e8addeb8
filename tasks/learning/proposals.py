"""Encoders that were found better and wait for a person's word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks import results
from tasks.batches import Batch
from tasks.encoders.protocol import EncoderUri
from tasks.encoders.registry import Registry
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore


def outcomes(jobs: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """``retraining.json`` of the trainings that these command lines started, each with its ``data_uri``."""
    store = ObjectStore()
    return [
        {"data_uri": batch.data_uri, **store.get_json(batch.results / "retraining" / "retraining.json")}
        for batch in map(_first_batch, jobs)
        if results.find(store, batch.results / "retraining") is not None
    ]


def promote_approved(proposals: Sequence[dict[str, Any]]) -> list[str]:
    """Promote what a person approved; gives a sentence for each.

    :raises InvalidInput: another version became current meanwhile.
    """
    store, told = ObjectStore(), []
    for proposal in proposals:
        before, after = (EncoderUri.parse(proposal[name]) for name in ("encoder_before", "encoder_after"))
        registry = Registry(store, Batch(proposal["data_uri"], proposal["batches"][0]).encoders)
        assert after.version is not None  # only versions are proposed
        reason = f"approved by a person; {proposal['reason']}"
        if (
            not registry.promote(after.target, after.version, expected=before.version, reason=reason)
            and (current := registry.current(after.target)) != after.version
        ):
            raise InvalidInput(
                f"{after} was not promoted: {current} took the place of {before.version} meanwhile; retrain on a "
                "new batch to compare with that"
            )
        told.append(f"{after} is current now")
    return told


def _first_batch(job: Sequence[str]) -> Batch:
    return Batch(job[job.index("--data-uri") + 1], job[job.index("--batch-id") + 1])
