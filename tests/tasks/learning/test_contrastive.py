from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tasks.encoders.transformer import DnaTransformer
from tasks.learning import contrastive
from tasks.learning.contrastive import TrainingPlan, info_nce, train
from tasks.learning.pairs import ReadWindows
from tasks.reads.simulate import Library, random_genomes, simulate

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


def test_the_loss_falls() -> None:
    sequences = reads_of_many_compositions()
    model = KmerMlp.untrained(sequences, seed=1)
    record = train(model, ReadWindows(sequences), replace(PLAN, pairs_per_step=32), report=quiet)
    assert record.last_loss < record.first_loss - 0.1
    assert not model.training


def test_the_transformer_learns_from_few_pairs_what_genomes_are_made_of() -> None:
    """With words that did not overlap the loss stayed at that of guessing, ln 24 = 3.18."""
    genomes = random_genomes(8, 4_000, seed=3)  # equal in all but the order of four bases
    (reads,) = simulate(genomes, Library(templates=400, read_length=120, seed=3))
    sequences = Sequences(reads.sequences.ravel(), 120 * np.arange(401))
    model = DnaTransformer.untrained(sequences, seed=1)
    plan = TrainingPlan(steps=15, pairs_per_step=24, learning_rate=2e-3, temperature=0.1, seed=1)
    record = train(model, ReadWindows(sequences), plan, report=quiet)
    assert record.last_loss < np.log(24) - 0.8
    strands = sequences[:9], sequences[:9].reverse_complement()
    np.testing.assert_allclose(*map(model.encode_sequences, strands), atol=1e-5)


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


def test_how_far_it_is_is_told_in_words_and_numbers(
    reads_of: Callable[..., pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contrastive, "REPORT_SECONDS", 0)
    sequences = Sequences.from_arrow(reads_of(50)["sequence"])
    plan = TrainingPlan(steps=4, pairs_per_step=8, learning_rate=1e-3, temperature=0.1, seed=1)
    lines: list[str] = []
    numbers: list[dict[str, Any]] = []
    model = KmerMlp.untrained(sequences, seed=1)
    train(model, ReadWindows(sequences), plan, report=lines.append, progress=numbers.append)
    assert [line.partition(",")[0] for line in lines] == [f"step {step} of 4" for step in (1, 2, 3, 4)]
    assert [told["percent"] for told in numbers] == [25, 50, 75, 100]
    assert numbers[-1]["seconds_left"] == 0 and numbers[-1]["unit"] == "steps" and numbers[-1]["rate"] > 0
