"""The encoder of a batch: the one that is pinned, else the promoted one, else one trained from its own reads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.batches import Batch
from tasks.encoders.protocol import EncoderUri, load_encoder
from tasks.encoders.registry import Registry
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore


def ensure_encoder(
    store: ObjectStore, batch: Batch, requested_uri: str, sample_reads: Callable[[], pa.Table]
) -> str:
    """The resolved URI of the batch's encoder, pinned in ``batches/<id>/encoder.json``.

    Where ``registry://NAME`` has no version yet, the first one is trained from ``sample_reads()``, registered
    and promoted; of several runs that do so at once, one wins and all use its version.

    :param sample_reads: gives reads of the batch to learn from, columns ``read_id`` and ``sequence`` (string);
        called only where a first version has to be trained. 20,000 to 200,000 reads are enough.
    :raises InvalidEncoder: the URI cannot be understood, names nothing that exists, or cannot be trained.
    """
    pin = batch.results / "encoder.json"
    try:
        return str(store.get_json(pin)["uri"])
    except FileNotFoundError:
        resolved = _resolve(store, batch, EncoderUri.parse(requested_uri), sample_reads)
    store.put_json(pin, {"requested": requested_uri, "uri": str(resolved)}, if_absent=True)
    pinned = EncoderUri.parse(store.get_json(pin)["uri"])
    if pinned.scheme == "registry" and pinned.version is not None:
        Registry(store, batch.encoders).note_use(pinned.target, pinned.version, batch.batch_id)
    return str(pinned)


def needs_training(store: ObjectStore, batch: Batch, requested_uri: str) -> bool:
    """Whether :func:`ensure_encoder` has to train a first version.

    :raises InvalidEncoder: the URI cannot be understood.
    """
    address = EncoderUri.parse(requested_uri)
    if address.scheme != "registry" or address.version is not None:
        return False
    return Registry(store, batch.encoders).current(address.target) is None


def train_first(
    name: str, reads: pa.Table, directory: Path, *, batch_id: str, steps: int | None = None
) -> dict[str, Any]:
    """Train the encoder ``name`` from random weights on windows of ``reads`` and save it in ``directory``.

    A tenth of the reads is held out; the recalls in the card are measured on them. Takes about half a minute
    on two cores for ``kmer-mlp``, two minutes for ``dna-transformer``, which guesses hidden words first.

    :param reads: columns ``read_id`` and ``sequence`` (string).
    :param steps: fewer or more than :mod:`tasks.learning.plans` says.
    :returns: the fields of its card.
    """
    # torch is loaded only where something is trained.
    from tasks.encoders.architectures import architecture_named
    from tasks.encoders.sequences import Sequences
    from tasks.learning.card import TrainingData, pairs_on_card, recalls, training_card
    from tasks.learning.contrastive import train
    from tasks.learning.evaluation import retrieval
    from tasks.learning.held_out import split_reads
    from tasks.learning.pairs import Mixture, ReadWindows
    from tasks.learning.plans import first_plan
    from tasks.learning.replay import SCHEMA, Replay

    architecture = architecture_named(name)
    split = split_reads(reads)
    if not len(split.training):
        raise InvalidInput(f"batch {batch_id!r} has no reads to train the first version of {name!r} from")
    sequences = Sequences.from_arrow(reads["sequence"]).take(split.training)
    plan = first_plan(architecture)
    plan = replace(plan, steps=steps or plan.steps)
    model = architecture.untrained(sequences, seed=plan.seed)
    masked = None
    if plan.masked_steps:
        from tasks.encoders.transformer import DnaTransformer
        from tasks.learning.masked_words import train_masked

        assert isinstance(model, DnaTransformer)  # no other plan has such steps
        masked = train_masked(model, sequences, plan)
    windows = ReadWindows(sequences)
    print(f"training the first version of {name}: {len(sequences)} reads, {plan.steps} steps", flush=True)
    record = train(model, windows, plan)
    metrics = recalls(retrieval(model, split.left, split.right))
    print(
        f"trained in {record.seconds} s, loss {record.first_loss} -> {record.last_loss}, {metrics}",
        flush=True,
    )
    model.save(directory)
    random = np.random.default_rng(plan.seed)
    Replay(SCHEMA.empty_table()).with_batch(batch_id, windows, random).save(directory)
    return training_card(
        data=TrainingData([batch_id], len(reads), len(split.training), split.templates, {}),
        pairs=pairs_on_card(Mixture.of([(windows, 1)]), {}),
        training=record,
        masked=masked,
        metrics=metrics,
    )


def _resolve(
    store: ObjectStore, batch: Batch, address: EncoderUri, sample_reads: Callable[[], pa.Table]
) -> EncoderUri:
    registry = Registry(store, batch.encoders)
    if address.scheme == "registry" and address.version is None:
        if needs_training(store, batch, str(address)):
            with tempfile.TemporaryDirectory(prefix="strandloop-encoder-") as directory:
                card = train_first(address.target, sample_reads(), Path(directory), batch_id=batch.batch_id)
                version = registry.register(address.target, Path(directory), card, parent=None)
            registry.promote(address.target, version, expected=None)
        address = replace(address, version=registry.current(address.target))
    load_encoder(str(address), encoders=batch.encoders, store=store)  # refuses here what no worker could load
    return address
