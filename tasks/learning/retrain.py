"""The last step of batches: train their encoder on what their graphs found, and promote it only if it is better."""

from __future__ import annotations

import copy
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from tasks import results
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
from tasks.learning.card import TrainingData, pairs_on_card, recalls, training_card
from tasks.learning.contrastive import TrainingPlan, TrainingRecord, train
from tasks.learning.evaluation import retrieval, share_unlike, species_precision
from tasks.learning.held_out import MAX_TEMPLATES, Split, split_reads
from tasks.learning.mix import batch_pairs, with_replay
from tasks.learning.pairs import Mixture, PairSource, PlacedPairs
from tasks.learning.panel import panels
from tasks.learning.plans import retraining_plan
from tasks.learning.promotion import decide
from tasks.learning.purity import purities
from tasks.learning.replay import Replay, read_replay
from tasks.object_store import ObjectStore

PREFIX = "retraining"
SEED = 1


@dataclass(frozen=True)
class Retraining:
    """What ``retraining.json`` says, the same below every batch that was learnt from.

    :param encoder_after: the candidate, promoted or not; None where the encoder cannot be retrained.
    :param better: whether the gate found it so; ``promoted`` may be false all the same, ``reason`` says why.
    """

    batches: list[str]
    encoder_before: str
    encoder_after: str | None
    better: bool
    promoted: bool
    reason: str
    metrics: dict[str, Any]
    pairs: dict[str, Any]
    training: dict[str, Any]
    seconds: float


class Training(Protocol):
    """Trains a model in place, as :func:`tasks.learning.contrastive.train` does."""

    def __call__(
        self, model: EncoderModel, pairs: PairSource, plan: TrainingPlan, *, report: Callable[[str], None]
    ) -> TrainingRecord:
        """See :func:`tasks.learning.contrastive.train`."""
        ...


@dataclass(frozen=True)
class Lessons:
    """What one batch gives: pairs to train on, in their shares, and what is kept out to ask for.

    :param split: the held-out templates.
    :param held_out: the reads that are not trained on, as many as there are templates at most.
    :param on_chains: left and right of held-out pairs of reads far apart on one chain.
    """

    reads: int
    split: Split
    pairs: list[tuple[PairSource, float]]
    held_out: Sequences
    on_chains: tuple[Sequences, Sequences]


def retrain(
    store: ObjectStore,
    batches: Sequence[Batch],
    *,
    propose: bool = False,
    training: Training = train,
    steps: int | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Retrain the encoder of the batches on all of them, publish ``batches/<id>/retraining/`` of each, sum it up.

    :mod:`tasks.learning.mix` says what is learnt from. The candidate starts from the encoder's current version.
    It is registered in any case, and becomes the current version if :func:`tasks.learning.promotion.decide`
    finds it better and nobody promoted another one meanwhile.

    :param batches: of one data URI and one encoder; those that were learnt from before are left as they are.
    :param propose: leave the promotion to a person.
    :param training: how it is trained.
    :param steps: fewer or more than :mod:`tasks.learning.plans` says.
    :raises InvalidInput: a batch has no pinned encoder, another one than the others, no reads or no graph.
    """
    known = {batch: results.find(store, batch.results / PREFIX) for batch in batches}
    fresh = [batch for batch in batches if known[batch] is None]
    if not fresh:
        (*_, last) = (found for found in known.values() if found)
        return {"status": "unchanged", **last.details}
    done = _interrupted(store, fresh, [batch for batch in batches if known[batch]])
    if done is None:
        started = time.monotonic()
        done = _retrain(store, fresh, propose=propose, training=training, steps=steps, report=report)
        done = replace(done, seconds=round(time.monotonic() - started, 1))
    told = ("batches", "encoder_before", "encoder_after", "better", "promoted", "reason", "seconds")
    summary = {name: value for name, value in asdict(done).items() if name in told}
    body = json.dumps(asdict(done), indent=2, sort_keys=True).encode() + b"\n"
    for batch in fresh:
        results.publish(store, batch.results / PREFIX, {"retraining.json": body}, summary)
    return {"status": "written", **summary}


def _interrupted(store: ObjectStore, fresh: Sequence[Batch], finished: Sequence[Batch]) -> Retraining | None:
    """A training on these batches that was told of below some of them only, or None."""
    for batch in finished:
        told = Retraining(**store.get_json(batch.results / PREFIX / "retraining.json"))
        if {each.batch_id for each in fresh} <= set(told.batches):
            return told
    return None


def _retrain(
    store: ObjectStore,
    batches: Sequence[Batch],
    *,
    propose: bool,
    training: Training,
    steps: int | None,
    report: Callable[[str], None],
) -> Retraining:
    encoders, ids = batches[0].encoders, [batch.batch_id for batch in batches]
    registry = Registry(store, encoders)
    address = encoder_of(store, registry, batches)
    parent = None
    if address.scheme == "registry":
        parent = load_encoder(str(address.one_strand()), encoders=encoders, store=store, to_train=True)
    if not isinstance(parent, EncoderModel) or address.version is None:
        reason = f"{address} is not in the registry, so it stays as it is"
        return Retraining(ids, str(address), None, False, False, reason, {}, {}, {}, 0)

    lessons = [lessons_of(store, batch, MAX_READS // len(batches)) for batch in batches]
    fresh = Mixture.of((source, share * lesson.reads) for lesson in lessons for source, share in lesson.pairs)
    replay = read_replay(registry.on_this_node(address.target, address.version))
    earlier = replay.without(ids)
    pairs = with_replay(fresh, earlier)
    data = TrainingData(
        batches=ids,
        reads=sum(lesson.reads for lesson in lessons),
        training_reads=sum(len(lesson.split.training) for lesson in lessons),
        held_out_templates=sum(lesson.split.templates for lesson in lessons),
        replayed=earlier.batches(),
    )
    left, right = _together([(lesson.split.left, lesson.split.right) for lesson in lessons])
    on_card = pairs_on_card(pairs, purities(parent, pairs, left, right))
    report(
        f"{data.reads} reads; pairs: "
        + ", ".join(f"{each.available} {name}" for name, each in on_card.items())
    )

    candidate = copy.deepcopy(parent)
    plan = retraining_plan(type(parent))
    record = training(candidate, pairs, replace(plan, steps=steps or plan.steps), report=report)
    before, after = (retrieval(encoder, left, right) for encoder in (parent, candidate))
    known_species = panels(store, batches[0].data_uri)
    labelled = {
        panel.name: (species_precision(parent, panel), species_precision(candidate, panel))
        for panel in known_species
    }
    held_out = Sequences.concatenate([lesson.held_out for lesson in lessons])
    far_left, far_right = _together([lesson.on_chains for lesson in lessons])
    on_chains = retrieval(parent, far_left, far_right), retrieval(candidate, far_left, far_right)
    decision = decide(before, after, chains=on_chains, panels=labelled)
    metrics = {
        "before": recalls(before),
        "after": recalls(after),
        "decided_on": f"recall@{decision.k}",
        "difference": asdict(decision.difference),
        "held_out_templates": data.held_out_templates,
        "checks": [asdict(check) for check in decision.checks],
        "unlike_panels": {
            panel.name: round(share_unlike(parent, panel, held_out), 4) for panel in known_species
        },
    }
    report(decision.reason)

    card = training_card(
        data=data,
        pairs=on_card,
        training=record,
        metrics={**recalls(after), "comparison_with_parent": metrics},
    )
    with tempfile.TemporaryDirectory(prefix="strandloop-encoder-") as directory:
        candidate.save(Path(directory))
        _replay_with(replay, batches, lessons).save(Path(directory))
        version = registry.register(address.target, Path(directory), card, parent=address.version)
    promoted, reason = False, decision.reason
    if decision.better and propose:
        reason += "; a person is to decide on its promotion"
    elif decision.better:
        promoted, reason = promote(registry, address, version, decision.reason)
    return Retraining(
        batches=ids,
        encoder_before=str(address),
        encoder_after=str(replace(address, version=version)),
        better=decision.better,
        promoted=promoted,
        reason=reason,
        metrics=metrics,
        pairs={name: asdict(each) for name, each in on_card.items()},
        training=asdict(record),
        seconds=0,
    )


def lessons_of(store: ObjectStore, batch: Batch, max_reads: int) -> Lessons:
    """What can be learnt from a batch; raises InvalidInput where there is nothing to train on."""
    reads = read_reads(store, batch, max_reads)
    split = split_reads(reads)
    if not len(split.training):
        raise InvalidInput(f"batch {batch.batch_id!r} has no reads to train on")
    training = reads.take(pa.array(split.training))
    edges = read_edges(store, batch, training["read_id"])
    placements = read_placements(store, batch, reads["read_id"])
    rows = np.setdiff1d(np.arange(len(reads)), split.training)
    held_out = Sequences.from_arrow(reads["sequence"]).take(rows)
    return Lessons(
        len(reads),
        split,
        batch_pairs(
            training["read_id"],
            Sequences.from_arrow(training["sequence"]),
            edges,
            placements.of(split.training),
        ),
        held_out[:MAX_TEMPLATES],
        _far_apart(held_out, placements.of(rows)),
    )


def _far_apart(reads: Sequences, placements: Placements) -> tuple[Sequences, Sequences]:
    """Pairs of reads that lie apart on one chain, as many as there are templates at most."""
    source = PlacedPairs.of(reads, placements.row, placements.chain, placements.offset, name="chains")
    left, right = source.one_each(np.random.default_rng(SEED), MAX_TEMPLATES)
    return reads.take(left), reads.take(right)


def _together(pairs: Sequence[tuple[Sequences, Sequences]]) -> tuple[Sequences, Sequences]:
    """Left and right of the pairs of all batches."""
    left, right = (Sequences.concatenate(list(side)) for side in zip(*pairs, strict=True))
    return left, right


def promote(registry: Registry, address: EncoderUri, version: str, reason: str) -> tuple[bool, str]:
    """Promote ``version`` in the place of the version that ``address`` names: whether it is current now, and why.

    A run that was interrupted after its promotion finds its own version promoted.
    """
    if registry.promote(address.target, version, expected=address.version, reason=reason):
        return True, reason
    current = registry.current(address.target)
    if current == version:
        return True, reason
    return False, f"{reason}; not promoted, because {current} took the place of {address.version} meanwhile"


def _replay_with(replay: Replay, batches: Sequence[Batch], lessons: Sequence[Lessons]) -> Replay:
    random = np.random.default_rng(SEED)
    for batch, lesson in zip(batches, lessons, strict=True):
        replay = replay.with_batch(batch.batch_id, Mixture.of(lesson.pairs), random)
    return replay


def encoder_of(store: ObjectStore, registry: Registry, batches: Sequence[Batch]) -> EncoderUri:
    """The encoder that the batches were embedded with, in its current version where it is a registered one."""
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
