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

from tasks import results
from tasks.batches import Batch
from tasks.encoders.model import EncoderModel
from tasks.encoders.protocol import EncoderUri
from tasks.encoders.registry import Registry
from tasks.encoders.sequences import Sequences
from tasks.learning.card import TrainingData, pairs_on_card, recalls, training_card
from tasks.learning.contrastive import TrainingPlan, TrainingRecord, train
from tasks.learning.evaluation import retrieval, share_unlike, species_precision
from tasks.learning.lessons import (
    SEED,
    Lessons,
    earlier_pairs,
    encoder_of,
    held_out_templates,
    load_parent,
    pairs_of,
    read_lessons,
    together,
)
from tasks.learning.pairs import Mixture, PairSource
from tasks.learning.panel import Panel, panels
from tasks.learning.plans import retraining_plan
from tasks.learning.promotion import Decision, decide
from tasks.learning.proposals import promote
from tasks.learning.purity import purities
from tasks.learning.replay import Replay
from tasks.object_store import ObjectStore, ObjectUri

PREFIX = "retraining"


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
    :raises InvalidInput: a batch has no pinned encoder, another one than the others, or no graph; or no batch has
        reads to train on.
    """
    known = {batch: results.find(store, batch.results / PREFIX) for batch in batches}
    fresh = [batch for batch in batches if known[batch] is None]
    if not fresh:
        (*_, last) = (found for found in known.values() if found)
        return {"status": "unchanged", **last.details}
    done = _interrupted(store, fresh, [batch for batch in batches if known[batch]])
    if done is None:
        started = time.monotonic()
        address = _begun_with(store, fresh)
        done = _retrain(store, fresh, address, propose=propose, training=training, steps=steps, report=report)
        done = replace(done, seconds=round(time.monotonic() - started, 1))
    told = ("batches", "encoder_before", "encoder_after", "better", "promoted", "reason", "seconds")
    summary = {name: value for name, value in asdict(done).items() if name in told}
    body = json.dumps(asdict(done), indent=2, sort_keys=True).encode() + b"\n"
    for batch in fresh:
        results.publish(store, batch.results / PREFIX, {"retraining.json": body}, summary)
    store.delete(_note_of(fresh))
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
    address: EncoderUri,
    *,
    propose: bool,
    training: Training,
    steps: int | None,
    report: Callable[[str], None],
) -> Retraining:
    ids = [batch.batch_id for batch in batches]
    parent = load_parent(store, batches, address)
    if parent is None:
        reason = f"{address} is not in the registry, so it stays as it is"
        return Retraining(ids, str(address), None, False, False, reason, {}, {}, {}, 0)

    lessons = read_lessons(store, batches)
    pairs = pairs_of(lessons, parent)
    on_card = pairs_on_card(pairs, purities(parent.model, pairs, *held_out_templates(lessons)))
    data = TrainingData(
        batches=ids,
        reads=sum(len(lesson.reads) for lesson in lessons),
        training_reads=sum(len(lesson.split.training) for lesson in lessons),
        held_out_templates=sum(lesson.split.templates for lesson in lessons),
        replayed=earlier_pairs(lessons, parent).batches(),
    )
    report(
        f"{data.reads} reads; pairs: "
        + ", ".join(f"{each.available} {name}" for name, each in on_card.items())
    )

    candidate = copy.deepcopy(parent.model)
    plan = retraining_plan(type(candidate))
    record = training(candidate, pairs, replace(plan, steps=steps or plan.steps), report=report)
    decision, metrics = _compared(parent.model, candidate, lessons, panels(store, batches[0].data_uri))
    report(decision.reason)

    card = training_card(
        data=data,
        pairs=on_card,
        training=record,
        metrics={**metrics["after"], "comparison_with_parent": metrics},
    )
    registry = Registry(store, batches[0].encoders)
    with tempfile.TemporaryDirectory(prefix="strandloop-encoder-") as directory:
        candidate.save(Path(directory))
        _replay_with(parent.replay, lessons).save(Path(directory))
        version = registry.register(address.target, Path(directory), card, parent=parent.version)
    after = replace(address, version=version)
    promoted, reason = False, decision.reason
    if decision.better and propose:
        reason += "; a person is to decide on its promotion"
    elif decision.better:
        promoted, reason = promote(registry, address, after, decision.reason)
    return Retraining(
        batches=ids,
        encoder_before=str(address),
        encoder_after=str(after),
        better=decision.better,
        promoted=promoted,
        reason=reason,
        metrics=metrics,
        pairs={name: asdict(each) for name, each in on_card.items()},
        training=asdict(record),
        seconds=0,
    )


def _compared(
    parent: EncoderModel, candidate: EncoderModel, lessons: Sequence[Lessons], known_species: Sequence[Panel]
) -> tuple[Decision, dict[str, Any]]:
    """The gate's decision, and the numbers that it is made by."""
    templates = held_out_templates(lessons)
    before, after = (retrieval(encoder, *templates) for encoder in (parent, candidate))
    on_chains = together([lesson.held_out_on_chains() for lesson in lessons])
    decision = decide(
        before,
        after,
        chains=(retrieval(parent, *on_chains), retrieval(candidate, *on_chains)),
        panels={
            panel.name: (species_precision(parent, panel), species_precision(candidate, panel))
            for panel in known_species
        },
    )
    held_out = Sequences.concatenate([lesson.held_out() for lesson in lessons])
    return decision, {
        "before": recalls(before),
        "after": recalls(after),
        "decided_on": f"recall@{decision.k}",
        "difference": asdict(decision.difference),
        "held_out_templates": len(before.ranks),
        "checks": [asdict(check) for check in decision.checks],
        "unlike_panels": {
            panel.name: round(share_unlike(parent, panel, held_out), 4) for panel in known_species
        },
    }


def _replay_with(replay: Replay, lessons: Sequence[Lessons]) -> Replay:
    random = np.random.default_rng(SEED)
    for lesson in lessons:
        own = Mixture.of(lesson.pairs)
        replay = replay.with_batch(lesson.batch_id, own, random) if len(own) else replay
    return replay


def _begun_with(store: ObjectStore, batches: Sequence[Batch]) -> EncoderUri:
    """The encoder to start from: its current version, or that which an interrupted run of this training began with.

    That run may have promoted its candidate before it could tell of it. Started from there, the same batches
    would be learnt from twice.
    """
    address, ids = encoder_of(store, batches), [batch.batch_id for batch in batches]
    if address.scheme != "registry" or address.version is None:
        return address
    begun = _note_of(batches)
    card = Registry(store, batches[0].encoders).card(address.target, address.version)
    try:
        earlier = store.get_json(begun)
    except FileNotFoundError:
        earlier = None
    if earlier == {"batches": ids, "version": card["parent"]} and card.get("data", {}).get("batches") == ids:
        return replace(address, version=card["parent"])
    store.put_json(begun, {"batches": ids, "version": address.version})
    return address


def _note_of(batches: Sequence[Batch]) -> ObjectUri:
    """Where an unfinished training says what it began with."""
    return batches[0].results / PREFIX / "begun.json"
