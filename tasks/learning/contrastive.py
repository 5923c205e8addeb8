"""Contrastive training: the two of a positive pair are drawn together, everything else in the batch apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tasks.encoders.model import EncoderModel
from tasks.learning.checkpoints import Checkpoints, TrainingState
from tasks.learning.pairs import PairSource
from tasks.learning.workers import Workers

if TYPE_CHECKING:
    from tasks.learning.search import Search

REPORT_SECONDS = 5.0


@dataclass(frozen=True)
class TrainingPlan:
    """How to train; the same plan, pairs and start give the same weights on the same machine.

    :param pairs_per_step: positive pairs of a step; each has all others of the step as negatives.
    :param learning_rate: peak of AdamW's learning rate, reached after a tenth of the steps, then a cosine to 0.
    :param temperature: of the softmax over similarities.
    :param masked_steps: steps of :mod:`tasks.learning.masked_words` before the first pair; for transformers only.
    """

    steps: int
    pairs_per_step: int
    learning_rate: float
    seed: int
    temperature: float = 0.05
    masked_steps: int = 0


@dataclass(frozen=True)
class TrainingRecord:
    """What a training did: ``first_loss`` and ``last_loss`` are means over a tenth of the steps, in nats.

    :param pairs_per_step: of each worker.
    :param seconds: of all processes that had a part in it, one after the other.
    :param workers: how many trained together; the losses are those of the first one.
    :param resumed_at: steps that were done already when the last process began, from its checkpoint.
    :param search: what the plan was chosen from, where it is not the usual one.
    """

    steps: int
    pairs_per_step: int
    learning_rate: float
    temperature: float
    seed: int
    seconds: float
    first_loss: float
    last_loss: float
    workers: int = 1
    resumed_at: int = 0
    search: Search | None = None


def train(
    model: EncoderModel,
    pairs: PairSource,
    plan: TrainingPlan,
    *,
    report: Callable[[str], None] = print,
    progress: Callable[[dict[str, Any]], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrainingRecord:
    """Train ``model`` in place on ``pairs`` and leave it in evaluation mode.

    Several workers (:class:`Workers`) end with the same weights: each draws pairs of its own, which are negatives
    to each other, and their gradients are averaged.

    :param report: called with a line of progress every few seconds, and at the end.
    :param progress: called beside it with what :mod:`tasks.progress` says of a job.
    :param checkpoints: where a training that was interrupted goes on from; it ends with the same weights as one
        that was not.
    """
    started = reported = time.monotonic()
    workers = Workers.present()
    # The first worker's stream is default_rng(seed): zeros at the end of a seed do not count.
    random = np.random.default_rng([plan.seed, workers.rank])
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=1e-4)
    state = TrainingState(model, optimizer, random, workers)
    losses = state.losses
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed + workers.rank)
        if checkpoints is not None:
            checkpoints.resume(state, pairs, plan)
            if losses:
                report(f"goes on from its checkpoint: {len(losses)} of {plan.steps} steps are done")
        resumed_at = len(losses)
        model.train()
        for step in range(resumed_at, plan.steps):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * schedule(step, plan.steps)
            drawn = pairs.draw(random, plan.pairs_per_step)
            left, right = (model(model.prepare(side)) for side in (drawn.left, drawn.right))
            loss = info_nce(left, right, temperature=plan.temperature)
            optimizer.zero_grad()
            loss.backward()
            workers.average_gradients(model)
            optimizer.step()
            losses.append(loss.item())
            done = step + 1
            if checkpoints is not None:
                checkpoints.save_if_due(state, at_end=done == plan.steps)
            if done == plan.steps or time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                report(f"step {done} of {plan.steps}, loss {np.mean(losses[-20:]):.3f}")
                if progress is not None:
                    progress(_progress(done, plan.steps, (done - resumed_at) / (reported - started)))
        model.eval()
    warm_up = max(1, plan.steps // 10)
    return TrainingRecord(
        steps=plan.steps,
        pairs_per_step=plan.pairs_per_step,
        learning_rate=plan.learning_rate,
        temperature=plan.temperature,
        seed=plan.seed,
        seconds=round(state.seconds, 1),
        first_loss=round(float(np.mean(losses[:warm_up])), 4),
        last_loss=round(float(np.mean(losses[-warm_up:])), 4),
        workers=workers.count,
        resumed_at=resumed_at,
    )


def info_nce(left: torch.Tensor, right: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Mean InfoNCE loss of unit vectors (n, dim), both ways: row i of one side is to find row i of the other."""
    scores = left @ right.T / temperature
    partners = torch.arange(len(scores), device=scores.device)
    return (
        torch.nn.functional.cross_entropy(scores, partners)
        + torch.nn.functional.cross_entropy(scores.T, partners)
    ) / 2


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate: rising over a tenth of the steps, then a cosine to 0."""
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + float(np.cos(np.pi * (step - warm_up) / max(1, steps - warm_up))))


def _progress(done: int, steps: int, per_second: float) -> dict[str, Any]:
    return {
        "percent": round(100 * done / steps, 1),
        "rate": round(per_second, 2),
        "unit": "steps",
        "seconds_left": round((steps - done) / per_second),
    }
