"""The profiles of earlier batches: ``drift/<encoder revision>/k<neighbours>/<time>-<batch id>.json``.

A prefix holds what is comparable, and nothing else; its keys are in the order of time, so that the last few are
found by one listing. A batch is in it once, with its newest profile.
"""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.drift.profile import Profile
from tasks.object_store import ObjectStore, ObjectUri

LAST = 10
"""Batches that a new one is compared with."""
_TIME = "%Y%m%dT%H%M%SZ"
_TIME_LETTERS = len("20261120T080000Z")


def earlier_profiles(store: ObjectStore, root: ObjectUri, profile: Profile) -> list[Profile]:
    """Of the last :data:`LAST` other batches with the same encoder version and number of neighbours.

    :param root: of all data (:attr:`tasks.batches.Batch.root`).
    """
    others = [
        info.uri for info in store.list(_prefix(root, profile)) if _batch_id(info.uri) != profile.batch_id
    ]
    return [Profile.from_json(store.get_json(uri)) for uri in others[-LAST:]]


def remember(store: ObjectStore, root: ObjectUri, profile: Profile) -> None:
    """Let later batches be compared with this profile, and no longer with a former one of the same batch.

    A batch of a single read has no similarities, and is not remembered.
    """
    if profile.reads < 2:
        return
    prefix = _prefix(root, profile)
    at = datetime.fromisoformat(profile.measured_at).astimezone(UTC).strftime(_TIME)
    own = prefix / f"{at}-{profile.batch_id}.json"
    store.put_json(own, profile.to_json(), if_absent=True)
    for info in list(store.list(prefix)):
        if info.uri != own and _batch_id(info.uri) == profile.batch_id:
            store.delete(info.uri)


def _prefix(root: ObjectUri, profile: Profile) -> ObjectUri:
    return root / "drift" / profile.encoder_revision / f"k{profile.k}"


def _batch_id(uri: ObjectUri) -> str:
    return uri.name.removesuffix(".json")[_TIME_LETTERS + 1 :]
