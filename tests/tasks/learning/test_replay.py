import copy
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tasks.learning import replay as module
from tasks.learning.contrastive import TrainingPlan, train
from tasks.learning.evaluation import species_precision
from tasks.learning.mix import with_replay
from tasks.learning.pairs import Mixture, ReadWindows
from tasks.learning.panel import Panel
from tasks.learning.replay import SCHEMA, Replay, read_replay
from tasks.reads.simulate import Genome, Library, Truth, random_genomes, simulate

EMPTY = Replay(SCHEMA.empty_table())


def windows(letter: str, reads: int = 50) -> ReadWindows:
    return ReadWindows(Sequences.from_arrow(pa.array([letter * 100] * reads)), (f"windows of {letter}",))


def test_every_batch_has_an_equal_share_and_newest_is_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PAIRS", 60)
    random = np.random.default_rng(1)
    reservoir = EMPTY
    for number, letter in enumerate("ACG", 1):
        reservoir = reservoir.with_batch(f"b{number}", windows(letter), random)
        assert reservoir.batches() == {f"b{n}": 60 // number for n in range(1, number + 1)}
    assert {(row["batch_id"], row["left"][0], row["source"]) for row in reservoir.pairs.to_pylist()} <= {
        *(("b1", base, "windows of A") for base in "AT"),
        *(("b2", base, "windows of C") for base in "CG"),
        *(("b3", base, "windows of G") for base in "GC"),
    }
    again = reservoir.with_batch("b2", windows("T"), random)
    assert again.batches() == {"b1": 20, "b2": 20, "b3": 20}
    assert "windows of C" not in again.pairs["source"].to_pylist()
    assert again.without(["b1", "b3"]).batches() == {"b2": 20}


def test_the_reservoir_is_bounded_in_bases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BASES", 3_000)
    reservoir = EMPTY.with_batch("b1", windows("A"), np.random.default_rng(1))
    bases = sum(len(row["left"]) + len(row["right"]) for row in reservoir.pairs.to_pylist())
    assert 1_500 < bases < 4_500


def test_it_is_kept_beside_the_encoder_and_draws_its_pairs(tmp_path: Path) -> None:
    assert len(read_replay(tmp_path)) == 0
    reservoir = EMPTY.with_batch("b1", windows("A"), np.random.default_rng(1))
    reservoir.save(tmp_path)
    known = read_replay(tmp_path)
    assert known.pairs.equals(reservoir.pairs)
    drawn = known.draw(np.random.default_rng(2), 30)
    assert len(drawn.left) == len(drawn.right) == 30
    assert {chr(base) for base in np.unique(drawn.left.bases)} == {"A", "T"}  # both strands


def sequenced(genomes: list[Genome], seed: int) -> tuple[Sequences, Panel]:
    """Reads to train on, and others of the same genomes to be asked for."""
    sides = []
    for templates, offset in ((1_200, 0), (600, 1)):
        (reads,) = simulate(genomes, Library(templates=templates, read_length=150, seed=2 * seed + offset))
        sequences = Sequences(reads.sequences.ravel(), 150 * np.arange(templates + 1))
        sides.append((sequences, np.array([Truth.from_name(name).genome for name in reads.names])))
    return sides[0][0], Panel("held out", *sides[1])


def test_another_batch_of_other_species_does_not_make_an_encoder_forget_the_first() -> None:
    genomes = random_genomes(12, 20_000, seed=5)
    (first, asked), (second, _) = sequenced(genomes[:6], 1), sequenced(genomes[6:], 2)
    plan = TrainingPlan(steps=120, pairs_per_step=256, learning_rate=1e-3, temperature=0.1, seed=1)
    model = KmerMlp.untrained(first, seed=1)
    before_training = species_precision(model, asked).shares.mean()
    train(model, ReadWindows(first), plan, report=lambda line: None)
    learnt = species_precision(model, asked).shares.mean()
    assert learnt > before_training + 0.05

    fresh = Mixture.of([(ReadWindows(second), 1)])
    reservoir = EMPTY.with_batch("first", ReadWindows(first), np.random.default_rng(1))
    after = []
    for pairs in (fresh, with_replay(fresh, reservoir)):
        retrained = copy.deepcopy(model)
        train(retrained, pairs, plan, report=lambda line: None)
        after.append(species_precision(retrained, asked).shares.mean())
    forgot, kept = after
    print(
        f"precision@10 of the first batch: {learnt:.4f} learnt, {forgot:.4f} without replay, {kept:.4f} with it"
    )
    assert kept > learnt - 0.01
    assert forgot < learnt - 0.05
