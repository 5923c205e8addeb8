"""Batches that are to be embedded anew with the current version of their encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tasks.batches import Batch, read_request
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore


def reembedding_runs(data_uri: str, batch_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Parameters of ``genomics_batch`` for each batch: its own request, with all results replaced.

    :raises InvalidInput: a batch was never run, so nobody knows what was asked of it.
    """
    store, runs = ObjectStore(), []
    for batch_id in dict.fromkeys(batch_ids):
        try:
            request = read_request(store, Batch(data_uri, batch_id))
        except FileNotFoundError as error:
            raise InvalidInput(
                f"batch {batch_id!r} has no request.json below {data_uri}: it was never run, so there is nothing "
                "to embed anew"
            ) from error
        runs.append({**asdict(request), "data_uri": data_uri, "batch_id": batch_id, "replace_results": True})
    return runs
