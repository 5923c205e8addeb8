"""Compare a finished batch with the ones before it, once, and publish what was found."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from tasks import results
from tasks.batches import Batch
from tasks.drift.comparison import compare
from tasks.drift.history import earlier_profiles, remember
from tasks.drift.profile import Profile, measure_profile
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore


def measure_drift(data_uri: str, batch_id: str, *, threshold: float) -> dict[str, Any]:
    """Publish ``drift/drift.json`` of a batch, once: its profile, and what it is beside earlier batches.

    Earlier batches are the last ten others that were measured with the same encoder version and number of
    neighbours, without those of a very different number of reads. Other encoders' similarities are not comparable,
    and are never looked at.

    :param threshold: see :class:`tasks.drift.comparison.Comparison`.
    :return: ``status``, ``warning`` (whether people should look), ``verdict`` (the sentence for them), ``earlier``
        (number of batches that it was compared with).
    :raises InvalidInput: the threshold is no share.
    :raises StorageError: the graph or the clusters are missing or damaged.
    """
    if not 0 <= threshold <= 1:
        raise InvalidInput(f"the threshold of drift is a share of reads, 0 to 1, and not {threshold}")
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    prefix = batch.results / "drift"
    known = results.find(store, prefix)
    if known is not None:
        print(f"{prefix} is finished already: unchanged")
        remember(store, batch.root, Profile.from_json(store.get_json(prefix / "drift.json")["profile"]))
        return {"status": "unchanged", **known.details}
    profile = measure_profile(store, batch)
    comparison = compare(profile, earlier_profiles(store, batch.root, profile), threshold=threshold)
    summary = {
        "warning": comparison.warning,
        "verdict": comparison.verdict,
        "earlier": len(comparison.earlier),
    }
    drift = {"profile": profile.to_json(), "comparison": asdict(comparison)}
    results.publish(
        store, prefix, {"drift.json": json.dumps(drift, sort_keys=True).encode() + b"\n"}, summary
    )
    remember(store, batch.root, profile)
    return {"status": "written", **summary}
