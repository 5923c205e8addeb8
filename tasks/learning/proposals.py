"""Encoders that were found better: promoted at once, or when a person approves."""

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
        promoted, reason = promote(registry, before, after, f"approved by a person; {proposal['reason']}")
        if not promoted:
            raise InvalidInput(f"{after}: {reason}; retrain on a new batch to compare with that")
        told.append(f"{after} is current now")
    return told


def promote(registry: Registry, before: EncoderUri, after: EncoderUri, reason: str) -> tuple[bool, str]:
    """Promote a version in the place of ``before``: whether it is current now, and why or why not.

    A run that was interrupted after its promotion finds its own version promoted.
    """
    assert after.version is not None  # a version was registered
    if registry.promote(after.target, after.version, expected=before.version, reason=reason):
        return True, reason
    current = registry.current(after.target)
    if current == after.version:
        return True, reason
    return False, f"{reason}; not promoted, because {current} took the place of {before.version} meanwhile"


def _first_batch(job: Sequence[str]) -> Batch:
    return Batch(job[job.index("--data-uri") + 1], job[job.index("--batch-id") + 1])
