"""What is learnt from: the encoder that batches have in common, and what each of them teaches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tasks.batches import Batch
from tasks.encoders.model import EncoderModel
from tasks.encoders.protocol import EncoderUri, load_encoder
from tasks.encoders.registry import Registry
from tasks.encoders.sequences import Sequences
from tasks.errors import InvalidInput
from tasks.learning.batch_results import (
    MAX_READS,
    Placements,
    read_edges,
    read_placements,
    read_reads,
)
from tasks.learning.held_out import MAX_TEMPLATES, Split, split_reads
from tasks.learning.mix import batch_pairs, with_replay, with_synthetic
from tasks.learning.pairs import Mixture, PairSource, PlacedPairs
from tasks.learning.replay import Replay, read_replay
from tasks.object_store import ObjectStore

SEED = 1
SAMPLE_READS = 10_000
"""That made-up species are like: enough for their composition and lengths."""


@dataclass(frozen=True)
class Parent:
    """An encoder that can be retrained, and the pairs that it was trained on before."""

    address: EncoderUri
    version: str
    model: EncoderModel
    replay: Replay


@dataclass(frozen=True)
class Lessons:
    """What one batch gives.

    :param reads: columns ``read_id`` and ``sequence``; ``split`` says which of them are trained on.
    :param placements: of ``reads`` on chains.
    :param pairs: of the reads that are trained on, and in which shares they are drawn.
    """

    batch_id: str
    reads: pa.Table
    split: Split
    placements: Placements
    pairs: list[tuple[PairSource, float]]

    def trained_on(self, most: int) -> Sequences:
        """Reads that are trained on, at most so many, spread over all of them."""
        rows = self.split.training
        return self._all.take(rows[:: -(-len(rows) // most) or 1])

    def held_out(self) -> Sequences:
        """Reads that are not trained on, as many as there are held-out templates at most."""
        return self._all.take(self._kept_out()[:MAX_TEMPLATES])

    def held_out_on_chains(self) -> tuple[Sequences, Sequences]:
        """Left and right of pairs of reads that are not trained on, far apart on one chain."""
        rows = self._kept_out()
        reads, placements = self._all.take(rows), self.placements.of(rows)
        source = PlacedPairs.of(reads, placements.row, placements.chain, placements.offset, name="chains")
        left, right = source.one_each(np.random.default_rng(SEED), MAX_TEMPLATES)
        return reads.take(left), reads.take(right)

    @property
    def _all(self) -> Sequences:
        return Sequences.from_arrow(self.reads["sequence"])

    def _kept_out(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.reads)), self.split.training)


def encoder_of(store: ObjectStore, batches: Sequence[Batch]) -> EncoderUri:
    """The encoder that the batches were embedded with, in its current version where it is a registered one.

    :raises InvalidInput: a batch has no pinned encoder, or another one than the others.
    """
    registry = Registry(store, batches[0].encoders)
    addresses = {}
    for batch in batches:
        try:
            pinned = EncoderUri.parse(store.get_json(batch.results / "encoder.json")["uri"])
        except FileNotFoundError as error:
            raise InvalidInput(
                f"batch {batch.batch_id!r} has no encoder.json: it was not embedded, so there is nothing to retrain"
            ) from error
        if pinned.scheme == "registry":
            pinned = replace(pinned, version=registry.current(pinned.target) or pinned.version)
        addresses[batch.batch_id] = pinned
    if len({str(address) for address in addresses.values()}) > 1:
        each = ", ".join(f"{batch_id}: {address}" for batch_id, address in addresses.items())
        raise InvalidInput(f"batches of one encoder are learnt from together, not of several ({each})")
    return next(iter(addresses.values()))


def load_parent(store: ObjectStore, batches: Sequence[Batch], address: EncoderUri) -> Parent | None:
    """The encoder, with what it was trained on besides these batches; None where it cannot be retrained."""
    if address.scheme != "registry" or address.version is None:
        return None
    encoders = batches[0].encoders
    model = load_encoder(str(address.one_strand()), encoders=encoders, store=store, to_train=True)
    if not isinstance(model, EncoderModel):
        return None
    directory = Registry(store, encoders).on_this_node(address.target, address.version)
    return Parent(address, address.version, model, read_replay(directory))


def read_lessons(
    store: ObjectStore, batches: Sequence[Batch], split: Callable[[pa.Table], Split] = split_reads
) -> list[Lessons]:
    """What the batches teach, of at most MAX_READS reads together.

    :param split: which reads of a batch to train on, and what to ask for.
    :raises InvalidInput: a batch has no finished graph, or none has reads to train on.
    """
    lessons = [_lessons_of(store, batch, MAX_READS // len(batches), split) for batch in batches]
    if not any(len(lesson.split.training) for lesson in lessons):
        names = ", ".join(batch.batch_id for batch in batches)
        raise InvalidInput(f"there are no reads to train on in batch {names}")
    return lessons


def pairs_of(lessons: Sequence[Lessons], parent: Parent) -> Mixture:
    """The pairs of all batches, in the shares of their reads, made-up ones, and those learnt from before."""
    weighted = (
        (source, share * len(lesson.split.training))
        for lesson in lessons
        for source, share in with_synthetic(lesson.pairs, lesson.trained_on(SAMPLE_READS))
    )
    return with_replay(Mixture.of(weighted), earlier_pairs(lessons, parent))


def earlier_pairs(lessons: Sequence[Lessons], parent: Parent) -> Replay:
    """The parent's pairs of other batches than these."""
    return parent.replay.without([lesson.batch_id for lesson in lessons])


def held_out_templates(lessons: Sequence[Lessons]) -> tuple[Sequences, Sequences]:
    """Left and right of the held-out templates of all batches."""
    return together([(lesson.split.left, lesson.split.right) for lesson in lessons])


def together(pairs: Sequence[tuple[Sequences, Sequences]]) -> tuple[Sequences, Sequences]:
    """Left and right of several sets of pairs, one after the other."""
    left, right = (Sequences.concatenate(list(side)) for side in zip(*pairs, strict=True))
    return left, right


def _lessons_of(
    store: ObjectStore, batch: Batch, max_reads: int, split: Callable[[pa.Table], Split]
) -> Lessons:
    reads = read_reads(store, batch, max_reads)
    divided = split(reads)
    training = reads.take(pa.array(divided.training))
    placements = read_placements(store, batch, reads["read_id"])
    pairs = batch_pairs(
        training["read_id"],
        Sequences.from_arrow(training["sequence"]),
        read_edges(store, batch, training["read_id"]),
        placements.of(divided.training),
    )
    return Lessons(batch.batch_id, reads, divided, placements, pairs)
