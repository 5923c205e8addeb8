import numpy as np
import pytest

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tasks.learning.contrastive import TrainingPlan, train
from tasks.learning.pairs import Mixture, ReadPairs, ReadWindows
from tasks.learning.purity import purities
from tasks.reads.simulate import Library, Truth, random_genomes, simulate


@pytest.mark.parametrize("pure", [0.0, 0.5, 1.0])
def test_the_share_of_pairs_of_one_genome_is_estimated_without_labels(pure: float) -> None:
    genomes = random_genomes(8, 20_000, seed=5)
    (reads,) = simulate(genomes, Library(templates=2_500, read_length=150, seed=1))
    both = Sequences(reads.sequences.ravel(), 150 * np.arange(2_501))
    held_out, sequences = both[:500], both[500:]
    genome = np.array([Truth.from_name(name).genome for name in reads.names[500:]])
    model = KmerMlp.untrained(sequences, seed=1)
    plan = TrainingPlan(steps=40, pairs_per_step=128, learning_rate=1e-3, temperature=0.1, seed=1)
    train(model, ReadWindows(sequences), plan, report=lambda line: None)

    random = np.random.default_rng(2)
    left, right = random.integers(0, 2_000, (2, 40_000))
    same = np.flatnonzero((genome[left] == genome[right]) & (left != right))[:2_000]
    chosen = np.concatenate([same[: int(2_000 * pure)], np.arange(int(2_000 * (1 - pure)))])
    graph = ReadPairs(sequences, left[chosen], right[chosen], ("graph",))
    halves = ReadWindows(held_out).draw(random, 500)
    found = purities(model, Mixture.of([(ReadWindows(sequences), 1), (graph, 1)]), halves.left, halves.right)
    assert found["windows of one read"] > 0.9
    assert found["graph"] == pytest.approx(pure, abs=0.1)


def test_with_few_templates_nothing_is_estimated() -> None:
    reads = Sequences(np.full(2_000, ord("A"), np.uint8), 100 * np.arange(21))
    model, pairs = KmerMlp.untrained(reads, seed=1), Mixture.of([(ReadWindows(reads), 1)])
    assert purities(model, pairs, reads[:19], reads[:19]) == {}
    assert purities(model, pairs, reads, reads) == {"windows of one read": 0.0}  # all are alike
