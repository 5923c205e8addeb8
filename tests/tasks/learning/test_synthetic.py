import numpy as np

from tasks.encoders.kmer_on_cpu import PROFILES
from tasks.encoders.sequences import Sequences
from tasks.learning.synthetic import MAX_BASES, SyntheticSpecies


def reads(count: int, length: int, shares: list[float]) -> Sequences:
    random = np.random.default_rng(1)
    bases = random.choice(np.frombuffer(b"ACGT", np.uint8), count * length, p=shares)
    return Sequences(bases, length * np.arange(count + 1))


def drawn(like: Sequences, count: int, seed: int = 1) -> tuple[Sequences, Sequences]:
    found = SyntheticSpecies.like(like).draw(np.random.default_rng(seed), count)
    return found.left, found.right


def test_two_windows_of_one_species_are_more_alike_than_those_of_two() -> None:
    left, right = (PROFILES.of(side) for side in drawn(reads(50, 400, [0.25] * 4), 300))
    alike = np.einsum("nd,nd->n", left, right)
    unlike = np.einsum("nd,nd->n", left, np.roll(right, 1, axis=0))
    assert alike.mean() > unlike.mean() + 2 * (unlike.std() + alike.std()) / np.sqrt(300)


def test_species_are_like_the_reads_in_the_mean_and_unlike_each_other() -> None:
    left, _ = drawn(reads(50, 400, [0.4, 0.1, 0.1, 0.4]), 400)
    is_gc = np.isin(left.bases, np.frombuffer(b"GC", np.uint8))
    of_each = np.add.reduceat(is_gc, left.offsets[:-1]) / left.lengths
    assert 0.15 < of_each.mean() < 0.35
    assert of_each.std() > 0.05


def test_sequences_are_no_longer_than_reads_and_than_a_limit() -> None:
    left, right = drawn(reads(20, 90, [0.25] * 4), 100)
    assert max(left.lengths.max(), right.lengths.max()) <= 90
    assert min(left.lengths.min(), right.lengths.min()) >= 40
    left, _ = drawn(reads(2, 3 * MAX_BASES, [0.25] * 4), 100)
    assert MAX_BASES / 2 < left.lengths.max() <= MAX_BASES


def test_the_same_random_state_gives_the_same_pairs() -> None:
    like = reads(20, 90, [0.25] * 4)
    one, again, other = (drawn(like, 30, seed)[0].bases.tobytes() for seed in (1, 1, 2))
    assert one == again != other


def test_what_is_not_acgt_says_nothing_of_composition() -> None:
    like = reads(20, 90, [0.25] * 4)
    with_n = Sequences(
        np.concatenate([like.bases, np.full(500, ord("N"), np.uint8)]), np.append(like.offsets, 2300)
    )
    assert np.array_equal(SyntheticSpecies.like(like).log_odds, SyntheticSpecies.like(with_n).log_odds)


def test_of_no_reads_there_are_no_species() -> None:
    assert len(SyntheticSpecies.like(Sequences(np.empty(0, np.uint8), np.zeros(1, np.int64)))) == 0
