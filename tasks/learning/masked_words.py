"""Masked-language training (Devlin et al., NAACL 2019): hide words of a read, and guess them from the others.

The first stage of a transformer's training, before pairs tell it which reads belong together. A hidden word is
written as the unknown word, which no other word looks at: what becomes of bases that could not be called. Words
that overlap are hidden together, all that hold one base, for the others would tell what is hidden (as in DNABERT,
Ji et al., Bioinformatics 2021).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from tasks.encoders.sequences import Sequences
from tasks.encoders.transformer import DnaTransformer
from tasks.encoders.words import FIRST_WORD, UNKNOWN
from tasks.learning.contrastive import REPORT_SECONDS, TrainingPlan, schedule

HIDDEN_SHARE = 0.15


@dataclass(frozen=True)
class MaskedRecord:
    """What the stage did: losses are means over a tenth of the steps, in nats a hidden word."""

    steps: int
    seconds: float
    first_loss: float
    last_loss: float


def train_masked(
    model: DnaTransformer,
    sequences: Sequences,
    plan: TrainingPlan,
    *,
    report: Callable[[str], None] = print,
) -> MaskedRecord:
    """Train ``model`` in place on random reads for ``plan.masked_steps`` steps; the guessing head is thrown away.

    :param plan: a step reads ``pairs_per_step`` reads, each on a random strand.
    """
    started = reported = time.monotonic()
    random = np.random.default_rng(plan.seed)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        head = torch.nn.Sequential(
            torch.nn.Linear(model.dim, model.dim), torch.nn.GELU(), torch.nn.LayerNorm(model.dim)
        ).to(model.device)
        parameters = [*model.parameters(), *head.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=plan.learning_rate, weight_decay=1e-4)
        model.train()
        for step in range(plan.masked_steps):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate * schedule(step, plan.masked_steps)
            loss = masked_loss(model, head, _some(sequences, random, plan.pairs_per_step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if time.monotonic() - reported >= REPORT_SECONDS:
                reported = time.monotonic()
                report(f"masked step {step + 1} of {plan.masked_steps}, loss {np.mean(losses[-20:]):.3f}")
        model.eval()
    tenth = max(1, plan.masked_steps // 10)
    return MaskedRecord(
        steps=plan.masked_steps,
        seconds=round(time.monotonic() - started, 1),
        first_loss=round(float(np.mean(losses[:tenth])), 4),
        last_loss=round(float(np.mean(losses[-tenth:])), 4),
    )


def masked_loss(model: DnaTransformer, head: torch.nn.Module, sequences: Sequences) -> torch.Tensor:
    """Cross entropy of hidden words given the others; 0 where the sequences have no known word to hide."""
    words = model.prepare(sequences).to(model.device)
    together = max(1, model.words.word_bases)
    first = torch.rand(words.shape, device=words.device) < HIDDEN_SHARE / together
    from_first = torch.nn.functional.pad(first.float(), (together - 1, 0))
    hidden = (words >= FIRST_WORD) & (torch.nn.functional.max_pool1d(from_first, together, stride=1) > 0)
    states, _ = model.states(words.masked_fill(hidden, UNKNOWN))
    scores = head(states[hidden]) @ model.bert.embeddings.word_embeddings.weight.T
    return torch.nn.functional.cross_entropy(scores, words[hidden], reduction="sum") / hidden.sum().clamp(
        min=1
    )


def _some(sequences: Sequences, random: np.random.Generator, count: int) -> Sequences:
    """Random reads, each on a random strand."""
    rows = random.integers(0, len(sequences), count)
    return sequences.windows(rows, 0 * rows, sequences.lengths[rows], random.random(count) < 0.5)
