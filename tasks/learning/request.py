"""Which batches a retraining run is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.batches import Batch
from tasks.errors import InvalidInput


def training_jobs(
    data_uri: str, batch_id: str | None, published: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """One command line for each batch to learn from, in order, each batch once.

    :param batch_id: the batch that a person asked for; it goes before what was published.
    :param published: ``extra`` of the graph updates that started the run: ``data_uri`` and ``batch_id``.
    :raises InvalidInput: neither names a batch.
    """
    if batch_id is not None:
        batches = [Batch(data_uri, batch_id)]
    else:
        batches = [Batch(extra["data_uri"], extra["batch_id"]) for extra in published]
    if not batches:
        raise InvalidInput("no batch to learn from: set the parameter batch_id, for example 2026-11-20")
    return [
        ["python", "-m", "tasks.learning", "--data-uri", batch.data_uri, "--batch-id", batch.batch_id]
        for batch in dict.fromkeys(batches)
    ]
