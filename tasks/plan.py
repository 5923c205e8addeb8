"""What is to be done for a batch: all of it, the rest of it, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from tasks import results
from tasks.batches import Batch, BatchRequest, record_request
from tasks.landing import read_manifest
from tasks.object_store import ObjectStore


def plan_batch(data_uri: str, batch_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Record what is asked of the batch, once, and say whether anything is left to do.

    :param params: the fields of :class:`BatchRequest`, and ``replace_results``: whether to forget what stands
        under this batch id and compute it anew. Others are ignored: they say where to compute, not what.
    :return: ``status`` is ``new``, ``resumed`` (finished steps of an earlier run are kept) or ``complete``
        (the same request was answered to its end; nothing is left to do).
    :raises ConflictingResult: the batch was run with another request, and it is not to be replaced.
    """
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    request = BatchRequest(
        **{field.name: params[field.name] for field in fields(BatchRequest) if field.name in params}
    )
    _, landing_sha256 = read_manifest(store, batch)
    if params["replace_results"]:
        _forget(store, batch)
    is_new = record_request(store, batch, request, landing_sha256)
    report = results.find(store, batch.results / "report")
    status = "new" if is_new else "complete" if report is not None else "resumed"
    if status == "complete":
        print(f"batch {batch_id} is complete: nothing to do, nothing changed. Report: {batch.results}/report")
    return {"status": status, "batch_id": batch_id, "results": str(batch.results)}


def _forget(store: ObjectStore, batch: Batch) -> None:
    """Delete the batch's results, manifests first: no reader sees a result that is half gone."""
    found = [info.uri for info in store.list(batch.results)]
    for uri in sorted(found, key=lambda uri: uri.name != "manifest.json"):
        store.delete(uri)
