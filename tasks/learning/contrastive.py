"""Contrastive training: the two of a positive pair are drawn together, everything else in the batch apart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tasks.encoders.model import EncoderModel
from tasks.learning.pairs import PairSource

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
    """What a training did: ``first_loss`` and ``last_loss`` are means over a tenth of the steps, in nats."""

    steps: int
    pairs_per_step: int
    learning_rate: float
    temperature: float
    seed: int
    seconds: float
    first_loss: float
    last_loss: float


def train(
    model: EncoderModel,
    pairs: PairSource,
    plan: TrainingPlan,
    *,
    report: Callable[[str], None] = print,
) -> TrainingRecord:
    """Train ``model`` in place on ``pairs`` and leave it in evaluation mode.

    :param report: called with a line of progress every few seconds.
    """
    started = reported = time.monotonic()
    random = np.random.default_rng(plan.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=1e-4)
    warm_up = max(1, plan.steps // 10)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        model.train()
        for step in range(plan.steps):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * schedule(step, plan.steps)
            left, right = pairs.draw(random, plan.pairs_per_step)
            loss = info_nce(
                model(model.prepare(left)), model(model.prepare(right)), temperature=plan.temperature
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                report(f"step {step + 1} of {plan.steps}, loss {np.mean(losses[-20:]):.3f}")
        model.eval()
    return TrainingRecord(
        steps=plan.steps,
        pairs_per_step=plan.pairs_per_step,
        learning_rate=plan.learning_rate,
        temperature=plan.temperature,
        seed=plan.seed,
        seconds=round(time.monotonic() - started, 1),
        first_loss=round(float(np.mean(losses[:warm_up])), 4),
        last_loss=round(float(np.mean(losses[-warm_up:])), 4),
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
