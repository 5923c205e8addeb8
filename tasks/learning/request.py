"""Which batches a retraining run is for: those that wait to be learnt from, once they are enough.

A published graph is noted below ``retraining/waiting/``; its note goes when the batch was learnt from. So batches
that are too small to learn from alone are learnt from together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks import results
from tasks.batches import Batch
from tasks.encoders.protocol import EncoderUri
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore, ObjectUri


def training_jobs(
    data_uri: str,
    batch_id: str | None,
    published: Sequence[Mapping[str, Any]],
    *,
    min_new_reads: int = 0,
    options: Sequence[str] = (),
) -> list[list[str]]:
    """One command line for each encoder that is to be retrained, with the batches that it learns from.

    :param batch_id: the batch that a person asked for; then it alone is learnt from, whatever its size.
    :param published: ``extra`` of the graph updates that started the run: ``data_uri`` and ``batch_id``.
    :param min_new_reads: an encoder whose waiting batches have fewer reads waits for more.
    :param options: more of every command line.
    :raises InvalidInput: neither names a batch.
    """
    if batch_id is not None:
        return [_command([Batch(data_uri, batch_id)], options)]
    batches = [Batch(extra["data_uri"], extra["batch_id"]) for extra in published]
    if not batches:
        raise InvalidInput("no batch to learn from: set the parameter batch_id, for example 2026-11-20")
    store = ObjectStore()
    for batch in dict.fromkeys(batches):
        store.put_json(_note(batch), {})
    jobs = []
    for root in sorted({batch.data_uri for batch in batches}):
        for encoder, waiting in waiting_batches(store, root).items():
            reads = sum(waiting.values())
            names = ", ".join(batch.batch_id for batch in waiting)
            if reads < min_new_reads:
                print(f"{encoder}: {reads:,} new reads ({names}) wait until there are {min_new_reads:,}")
            else:
                print(f"{encoder}: to be retrained on {reads:,} new reads ({names})")
                jobs.append(_command(list(waiting), options))
    return jobs


def options(params: Mapping[str, Any]) -> list[str]:
    """The options of ``python -m tasks.learning`` that the DAG's parameters ask for."""
    chosen = ["--workers", str(params["workers"])]
    if params["approval"]:
        chosen.append("--propose")
    if params["tune"]:
        chosen += ["--tune", "--trials", str(params["tune_trials"])]
        chosen += ["--budget-usd", str(params["tune_budget_usd"]), "--instance-type", params["instance_type"]]
    return chosen


def waiting_batches(store: ObjectStore, data_uri: str) -> dict[str, dict[Batch, int]]:
    """The reads of every batch that waits, by encoder, without its version, and batch.

    Notes of batches that were learnt from, or whose results are gone, are removed.
    """
    found: dict[str, dict[Batch, int]] = {}
    for info in list(store.list(_notes(data_uri))):
        batch = Batch(data_uri, info.uri.name.removesuffix(".json"))
        graph = results.find(store, batch.results / "graph")
        if graph is None or results.find(store, batch.results / "retraining") is not None:
            store.delete(info.uri)
            continue
        encoder = str(replace(EncoderUri.parse(graph.details["encoder_uri"]), version=None))
        found.setdefault(encoder, {})[batch] = graph.details["reads"]
    return found


def _notes(data_uri: str) -> ObjectUri:
    return ObjectUri.parse(data_uri) / "retraining" / "waiting"


def _note(batch: Batch) -> ObjectUri:
    return _notes(batch.data_uri) / f"{batch.batch_id}.json"


def _command(batches: Sequence[Batch], options: Sequence[str]) -> list[str]:
    ids = [batch.batch_id for batch in batches]
    return ["python", "-m", "tasks.learning", "--data-uri", batches[0].data_uri, *options, "--batch-id", *ids]
