"""When the cluster of a batch is started: not so early that it waits for Phase 1, and is paid for waiting."""

from __future__ import annotations

from tasks.batches import Batch
from tasks.errors import StrandloopError
from tasks.object_store import ObjectStore

START_SECONDS = 15 * 60.0
"""A cluster with a Lustre file system takes so long from its order to its first job."""

FINAL_FAILURES = {"failed", "upstream_failed"}


class NothingToCompare(StrandloopError):
    """Phase 1 has failed for good, so there is nothing that a cluster could be started for."""

    retryable = False


def may_start_cluster(data_uri: str, batch_id: str, *, embedding: str | None) -> bool:
    """Whether the embedding is done, or by its own estimate needs no longer than a cluster takes to start.

    :param embedding: state of the task that embeds, in Airflow's words.
    :raises NothingToCompare: if it has failed.
    """
    if embedding in FINAL_FAILURES:
        raise NothingToCompare(f"the embedding of batch {batch_id} is {embedding}: no cluster is started")
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    if store.head(batch.results / "embeddings" / "manifest.json") is not None:
        print("the embeddings are there: the cluster may start")
        return True
    try:
        left = store.get_json(batch.results / "progress.json").get("seconds_left")
    except FileNotFoundError:
        left = None
    if left is None:
        print("the embedding does not say yet how long it takes")
        return False
    may = bool(left <= START_SECONDS)
    print(f"the embedding needs {left:.0f} s more; the cluster {'may start' if may else 'waits'}")
    return may
