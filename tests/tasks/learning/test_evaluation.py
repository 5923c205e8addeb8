import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tasks.learning import evaluation
from tasks.learning.contrastive import TrainingPlan, train
from tasks.learning.evaluation import bootstrap_difference, retrieval, share_unlike, species_precision
from tasks.learning.pairs import ReadWindows
from tasks.learning.panel import Panel
from tasks.reads.simulate import Library, random_genomes, simulate


class Vectors:
    """Gives the vectors that it was given, left ones first."""

    def __init__(self, *sides: np.ndarray) -> None:
        self._sides = [side.astype(np.float32) for side in sides]

    def encode_sequences(self, sequences: Sequences) -> np.ndarray:
        return self._sides.pop(0)


def sequences(count: int) -> Sequences:
    return Sequences.from_arrow(pa.array(["A"] * count))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_ranks_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BLOCK_ROWS", 7)
    random = np.random.default_rng(0)
    left = unit(random.normal(size=(25, 6)))
    right = unit(left + 0.4 * random.normal(size=left.shape))
    found = retrieval(Vectors(left, right), sequences(25), sequences(25))
    everything = np.concatenate([left, right])
    for row in range(50):
        order = [other for other in np.argsort(-(everything @ everything[row])) if other != row]
        assert found.ranks[row % 25, row // 25] == order.index((row + 25) % 50)
    assert 0 < found.recall(1) < found.recall(10) <= 1


def test_an_encoder_that_gives_all_reads_one_vector_finds_nothing() -> None:
    same = np.ones((30, 4)) / 2
    assert retrieval(Vectors(same, same), sequences(30), sequences(30)).recall(10) == 0


def panel(species: np.ndarray) -> Panel:
    return Panel("zoo", sequences(len(species)), species)


def test_precision_is_that_of_brute_force_and_ties_count_against(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BLOCK_ROWS", 7)
    random = np.random.default_rng(0)
    species = np.array(["ash", "birch", "cedar"])[random.integers(0, 3, 60)]
    vectors = random.integers(-2, 3, (60, 3)) + 2 * (species == "ash")[:, None]  # many equal scores
    found = species_precision(Vectors(vectors), panel(species), k=5)
    for row, scores in enumerate(vectors @ vectors.T):
        others = [other for other in range(60) if other != row]
        others.sort(key=lambda other: (-scores[other], species[other] == species[row]))
        assert found.shares[row] == np.mean(species[others[:5]] == species[row])
    by_species = found.by_species()
    assert list(by_species) == ["ash", "birch", "cedar"]
    assert by_species["ash"] == found.of("ash").mean() > by_species["birch"]


def test_neighbours_of_the_own_species_alone_are_all_that_is_asked() -> None:
    species = np.repeat(["ash", "birch"], 30)
    vectors = np.repeat(np.eye(2), 30, axis=0)
    assert species_precision(Vectors(vectors), panel(species)).by_species() == {"ash": 1, "birch": 1}


@pytest.mark.parametrize("seed", range(3))
def test_an_encoder_that_gives_all_reads_one_vector_tells_no_species(seed: int) -> None:
    """Whose scores are equal but for rounding: the last columns of a product come out of another loop."""
    species = np.repeat(["ash", "birch", "cedar"], [1000, 391, 12])
    same = np.repeat(unit(np.random.default_rng(seed).normal(size=(1, 192))), len(species), axis=0)
    assert species_precision(Vectors(same), panel(species)).shares.max() == 0
    assert retrieval(Vectors(same, same), sequences(1403), sequences(1403)).recall(100) == 0


def test_a_clear_difference_is_above_zero_and_its_mirror_below() -> None:
    before, after = np.zeros(200), np.repeat([0.0, 1.0], [170, 30])
    better, worse = bootstrap_difference(before, after), bootstrap_difference(after, before)
    assert 0 < better.low < 0.15 < better.high
    assert better.mean == pytest.approx(0.15)
    assert worse.high < 0


def test_as_many_won_as_lost_is_no_difference() -> None:
    before, after = np.repeat([1.0, 0.0], 50), np.repeat([0.0, 1.0], 50)
    interval = bootstrap_difference(before, after)
    assert interval.low < 0 < interval.high


def test_the_interval_is_that_of_the_normal_approximation() -> None:
    after = np.repeat([0.0, 1.0], [700, 300])
    interval = bootstrap_difference(np.zeros(1000), after)
    half_width = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert interval.low == pytest.approx(0.3 - half_width, abs=0.003)
    assert interval.high == pytest.approx(0.3 + half_width, abs=0.003)


def test_reads_of_species_that_a_panel_lacks_are_unlike_it() -> None:
    genomes = random_genomes(6, 10_000, seed=5)
    sides = []
    for chosen, seed in ((genomes[:3], 1), (genomes[:3], 2), (genomes[3:], 3)):
        (reads,) = simulate(chosen, Library(templates=600, read_length=150, seed=seed))
        sides.append(Sequences(reads.sequences.ravel(), 150 * np.arange(601)))
    known = Panel("known", sides[0], np.full(600, "any"))
    encoder = KmerMlp.untrained(sides[0], seed=1)
    plan = TrainingPlan(steps=40, pairs_per_step=128, learning_rate=1e-3, temperature=0.1, seed=1)
    train(encoder, ReadWindows(Sequences.concatenate(sides)), plan, report=lambda line: None)
    assert share_unlike(encoder, known, sides[1]) < 0.12
    assert share_unlike(encoder, known, sides[2]) > 0.3
    assert share_unlike(encoder, known, sides[0]) == 0  # each is there itself
