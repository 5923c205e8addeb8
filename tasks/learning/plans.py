"""How long and how fast each architecture is trained."""

from __future__ import annotations

from dataclasses import replace

from tasks.encoders.model import EncoderModel
from tasks.learning.contrastive import TrainingPlan

FIRST_PLANS = {
    # 17 s on two cores for 54,000 reads of 79 and 150 bp; more steps (800, a wider layer) told species apart worse.
    "kmer-mlp": TrainingPlan(steps=600, pairs_per_step=512, learning_rate=1e-3, temperature=0.1, seed=1),
    # Three minutes of CPU time for reads of 150 bp, not learnt out: on a GPU give both stages more steps and pairs.
    # So few masked steps were not seen to help.
    "dna-transformer": TrainingPlan(
        steps=200, pairs_per_step=64, learning_rate=2e-3, temperature=0.1, seed=1, masked_steps=20
    ),
}


def first_plan(architecture: type[EncoderModel]) -> TrainingPlan:
    """The plan for training from random weights."""
    return FIRST_PLANS[architecture.name]


def retraining_plan(architecture: type[EncoderModel]) -> TrainingPlan:
    """The plan for training on from a parent: half the learning rate, which keeps what the parent knows."""
    first = FIRST_PLANS[architecture.name]
    return replace(first, learning_rate=first.learning_rate / 2, masked_steps=0)
