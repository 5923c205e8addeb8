"""The last step of a batch: train its encoder on what the graph found, and promote it only if it is better."""

from __future__ import annotations

import copy
import io
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks import results
from tasks.batches import Batch
from tasks.encoders.model import EncoderModel
from tasks.encoders.protocol import EncoderUri, load_encoder
from tasks.encoders.registry import Registry
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidInput
from tasks.learning.card import recalls, training_card
from tasks.learning.chains import Overlaps, chained_pairs
from tasks.learning.contrastive import train
from tasks.learning.evaluation import retrieval
from tasks.learning.held_out import Split, split_reads
from tasks.learning.pairs import (
    Mixture,
    ReadPairs,
    ReadWindows,
    mates,
    mutual_neighbours,
    templates_of,
)
from tasks.learning.plans import retraining_plan
from tasks.learning.promotion import decide
from tasks.object_store import ObjectStore, ObjectUri

MAX_READS = 1_000_000
"""Reads of a larger batch that are not looked at; a million with ten edges each take about 2 GB."""
CHAIN_SEED = 1


@dataclass(frozen=True)
class Retraining:
    """What ``retraining.json`` says.

    :param encoder_after: the candidate, promoted or not; None where the encoder cannot be retrained.
    """

    encoder_before: str
    encoder_after: str | None
    promoted: bool
    reason: str
    metrics: dict[str, Any]
    pairs: dict[str, int]
    training: dict[str, Any]
    seconds: float


def retrain(
    store: ObjectStore, batch: Batch, *, steps: int | None = None, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Retrain the batch's encoder, publish ``batches/<id>/retraining/`` and give a summary of it.

    Half of the pairs are from the graph: reads on one chain of verified overlaps, in the share of the reads that
    are on one, and mutual nearest neighbours for the rest. The other half are the reads' own: the mates of a
    template that has two, windows of one read else, in the proportion in which the batch has them. The
    candidate starts from the encoder that the batch was embedded with. It is registered in any case, and
    becomes the current version if :func:`tasks.learning.promotion.decide` finds it better and nobody promoted
    another one meanwhile.

    :param steps: fewer or more than :mod:`tasks.learning.plans` says.
    :raises InvalidInput: the batch has no pinned encoder, no reads or no graph.
    """
    prefix = batch.results / "retraining"
    if (known := results.find(store, prefix)) is not None:
        return {"status": "unchanged", **known.details}
    started = time.monotonic()
    uri = _pinned(store, batch)
    address = EncoderUri.parse(uri)
    parent = None
    if address.scheme == "registry":
        one_strand = str(address.one_strand())
        parent = load_encoder(one_strand, encoders=batch.encoders, store=store, to_train=True)
    if not isinstance(parent, EncoderModel):
        done = Retraining(
            uri, None, False, f"{uri} is not in the registry, so it stays as it is", {}, {}, {}, 0
        )
    else:
        done = _retrain(store, batch, address, parent, steps=steps, report=report)
    done = replace(done, seconds=round(time.monotonic() - started, 1))
    summary = {
        key: value
        for key, value in asdict(done).items()
        if key in ("encoder_before", "encoder_after", "promoted", "reason", "seconds")
    }
    body = json.dumps(asdict(done), indent=2, sort_keys=True).encode() + b"\n"
    results.publish(store, prefix, {"retraining.json": body}, summary)
    return {"status": "written", **summary}


def _retrain(
    store: ObjectStore,
    batch: Batch,
    address: EncoderUri,
    parent: EncoderModel,
    *,
    steps: int | None,
    report: Callable[[str], None],
) -> Retraining:
    reads = read_reads(store, batch.results / "reads")
    split = split_reads(reads)
    pairs = _sources(store, batch, reads, split)
    counts = {source.name: len(source) for source in pairs.sources}
    report(f"{len(reads)} reads; pairs: " + ", ".join(f"{count} {name}" for name, count in counts.items()))

    candidate = copy.deepcopy(parent)
    plan = retraining_plan(type(parent))
    training = train(candidate, pairs, replace(plan, steps=steps or plan.steps), report=report)
    before = retrieval(parent, split.left, split.right)
    after = retrieval(candidate, split.left, split.right)
    decision = decide(before, after)
    metrics = {
        "before": recalls(before),
        "after": recalls(after),
        "decided_on": f"recall@{decision.k}",
        "difference": asdict(decision.difference),
        "held_out_templates": split.templates,
    }
    report(decision.reason)

    registry = Registry(store, batch.encoders)
    card = training_card(
        batch_id=batch.batch_id,
        reads=len(reads),
        split=split,
        pairs=counts,
        training=training,
        metrics={**recalls(after), "comparison_with_parent": metrics},
    )
    with tempfile.TemporaryDirectory(prefix="strandloop-encoder-") as directory:
        candidate.save(Path(directory))
        version = registry.register(address.target, Path(directory), card, parent=address.version)
    promoted, reason = False, decision.reason
    if decision.better:
        # A run that was interrupted after its promotion finds its own version promoted.
        promoted = (
            registry.promote(address.target, version, expected=address.version, reason=decision.reason)
            or registry.current(address.target) == version
        )
        if not promoted:
            reason += (
                f"; not promoted, because {registry.current(address.target)} took the place of "
                f"{address.version} meanwhile"
            )
    return Retraining(
        encoder_before=str(address),
        encoder_after=str(replace(address, version=version)),
        promoted=promoted,
        reason=reason,
        metrics=metrics,
        pairs=counts,
        training=asdict(training),
        seconds=0,
    )


def _sources(store: ObjectStore, batch: Batch, reads: pa.Table, split: Split) -> Mixture:
    """Where training pairs come from; their rows refer to the training reads alone."""
    training = reads.take(pa.array(split.training))
    sequences = Sequences.from_arrow(training["sequence"])
    if not len(sequences):
        raise InvalidInput(f"batch {batch.batch_id!r} has no reads to train on")
    templates = templates_of(training["read_id"])
    query, neighbour, cosine = read_edges(store, batch.results / "graph", training["read_id"])
    neighbours = ReadPairs(
        sequences,
        *mutual_neighbours(query, neighbour, cosine, templates=templates),
        name="mutual nearest neighbours",
    )
    paired = ReadPairs(sequences, *mates(training["read_id"]), name="mates")
    alone = np.setdiff1d(np.arange(len(sequences)), np.concatenate([paired.left, paired.right]))
    single = ReadWindows(sequences.take(alone))
    own = len(paired) + len(single)
    overlaps = read_overlaps(store, batch.results / "overlaps", training["read_id"])
    left, right = chained_pairs(sequences.lengths, overlaps, np.random.default_rng(CHAIN_SEED))
    chained = ReadPairs(sequences, left, right, name="chained overlaps")
    in_chains = len(np.union1d(left, right)) / len(sequences)
    shares = (
        (chained, in_chains),
        (neighbours, 1 - in_chains),
        (paired, len(paired) / own),
        (single, len(single) / own),
    )
    used = ((source, weight) for source, weight in shares if len(source) and weight)
    sources, weights = zip(*used, strict=True)
    return Mixture(list(sources), list(weights))


def read_reads(store: ObjectStore, prefix: ObjectUri) -> pa.Table:
    """``read_id`` and ``sequence`` of the batch's reads, file by file until MAX_READS."""
    tables: list[pa.Table] = []
    rows = 0
    for file in _files(store, prefix):
        body = results.fetch(store, prefix, file)
        tables.append(pq.read_table(io.BytesIO(body), columns=["read_id", "sequence"]))
        rows += tables[-1].num_rows
        if rows >= MAX_READS:
            break
    return pa.concat_tables(tables).slice(0, MAX_READS).combine_chunks()


def read_edges(
    store: ObjectStore, prefix: ObjectUri, read_ids: pa.ChunkedArray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Query row, neighbour row and cosine of every edge between two of ``read_ids``."""
    ids = read_ids.combine_chunks()
    columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for file in _files(store, prefix):
        body = results.fetch(store, prefix, file)
        edges = pq.read_table(io.BytesIO(body), columns=["read_id", "neighbour_id", "cosine"])
        query, neighbour = (
            pc.fill_null(pc.index_in(edges[name].combine_chunks(), value_set=ids), -1).to_numpy(False)
            for name in ("read_id", "neighbour_id")
        )
        known = (query >= 0) & (neighbour >= 0)
        columns.append((query[known], neighbour[known], edges["cosine"].to_numpy()[known]))
    query, neighbour, cosine = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return query, neighbour, cosine


def read_overlaps(store: ObjectStore, prefix: ObjectUri, read_ids: pa.ChunkedArray) -> Overlaps:
    """The verified overlaps between two of ``read_ids``; none where the batch's pairs were not aligned."""
    names = ("strand", "first_begin", "second_begin", "second_end")
    columns = [[np.empty(0, np.int64)] for _ in range(2 + len(names))]
    if results.find(store, prefix) is not None:
        ids = read_ids.combine_chunks()
        for file in _files(store, prefix):
            table = pq.read_table(io.BytesIO(results.fetch(store, prefix, file)))
            first, second = (
                pc.fill_null(pc.index_in(table[name].combine_chunks(), value_set=ids), -1).to_numpy(False)
                for name in ("read_id", "other_id")
            )
            known = (first >= 0) & (second >= 0)
            for column, values in zip(
                columns, (first, second, *(table[name] for name in names)), strict=True
            ):
                column.append(np.asarray(values)[known].astype(np.int64))
    return Overlaps(*(np.concatenate(column) for column in columns))


def _files(store: ObjectStore, prefix: ObjectUri) -> list[results.ResultFile]:
    manifest = results.find(store, prefix)
    if manifest is None or not manifest.files:
        raise InvalidInput(
            f"{prefix} has no finished result to learn from; run the batch's earlier steps first"
        )
    return [file for file in manifest.files if file.name.endswith(".parquet")]


def _pinned(store: ObjectStore, batch: Batch) -> str:
    try:
        return str(store.get_json(batch.results / "encoder.json")["uri"])
    except FileNotFoundError as error:
        raise InvalidInput(
            f"batch {batch.batch_id!r} has no encoder.json: it was not embedded, so there is nothing to retrain"
        ) from error
