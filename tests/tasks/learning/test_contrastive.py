from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.model import EncoderModel
from tasks.encoders.sequences import Sequences
from tasks.encoders.transformer import DnaTransformer
from tasks.learning.contrastive import TrainingPlan, info_nce, train
from tasks.learning.pairs import ReadWindows

PLAN = TrainingPlan(steps=30, pairs_per_step=64, learning_rate=1e-3, temperature=0.1, seed=1)


def quiet(line: str) -> None:
    pass


def test_info_nce_is_its_definition() -> None:
    random = torch.Generator().manual_seed(0)
    left, right = (
        torch.nn.functional.normalize(torch.randn(5, 3, generator=random), dim=1) for _ in range(2)
    )
    scores = np.exp((left @ right.T).numpy() / 0.1)
    expected = -np.mean(
        [np.log(scores[i, i] / scores[i].sum()) + np.log(scores[i, i] / scores[:, i].sum()) for i in range(5)]
    )
    assert info_nce(left, right, temperature=0.1).item() == pytest.approx(expected / 2, rel=1e-5)


def reads_of_many_compositions() -> Sequences:
    random = np.random.default_rng(0)
    reads = []
    for gc in random.uniform(0.1, 0.9, 200):
        reads.append(
            "".join(random.choice(list("ACGT"), 100, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]))
        )
    return Sequences.from_arrow(pa.array(reads))


@pytest.mark.parametrize("architecture", [KmerMlp, DnaTransformer])
def test_the_loss_falls(architecture: type[EncoderModel]) -> None:
    sequences = reads_of_many_compositions()
    model = architecture.untrained(sequences, seed=1)
    record = train(model, ReadWindows(sequences), replace(PLAN, pairs_per_step=32), report=quiet)
    assert record.last_loss < record.first_loss - 0.1
    assert not model.training


def test_genomes_separate(
    reads_of: Callable[..., pa.Table], nearest: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    reads = reads_of(600)
    sequences = Sequences.from_arrow(reads["sequence"])
    model = KmerMlp.untrained(sequences, seed=1)
    train(model, ReadWindows(sequences), PLAN, report=quiet)
    genome = np.array([read_id[0] for read_id in reads["read_id"].to_pylist()])
    neighbours, _ = nearest(model.encode(reads), 10)
    assert (genome[neighbours] == genome[:, None]).mean() > 0.8


def test_the_same_plan_gives_the_same_weights(reads_of: Callable[..., pa.Table]) -> None:
    sequences = Sequences.from_arrow(reads_of(50)["sequence"])
    plan = TrainingPlan(steps=3, pairs_per_step=32, learning_rate=1e-3, temperature=0.1, seed=1)
    weights = []
    for _ in range(2):
        model = KmerMlp.untrained(sequences, seed=1)
        train(model, ReadWindows(sequences), plan, report=quiet)
        weights.append(model.layers[0].weight.detach().clone())
    assert torch.equal(*weights)
