from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from tasks.learning import chains
from tasks.learning.chains import Overlaps, chained_pairs


@dataclass(frozen=True)
class Sequenced:
    """Reads of genomes: where each is from, and the overlaps that aligning neighbours finds."""

    genome: np.ndarray
    begin: np.ndarray
    lengths: np.ndarray
    strand: np.ndarray
    overlaps: Overlaps


def overlap(begin: np.ndarray, end: np.ndarray, strand: np.ndarray, i: int, j: int) -> tuple[int, ...]:
    """Read rows, strand, and begin in the first and begin and end in the second, on each read's own strand."""
    low, high = max(begin[i], begin[j]), min(end[i], end[j])
    first = low - begin[i] if strand[i] > 0 else end[i] - high
    second = (low - begin[j], high - begin[j]) if strand[j] > 0 else (end[j] - high, end[j] - low)
    return (i, j, int(strand[i] * strand[j]), int(first), int(second[0]), int(second[1]))


def sequenced(genomes: int, reads: int, *, bases: int, seed: int = 0, jitter: int = 0) -> Sequenced:
    rng = np.random.default_rng(seed)
    genome = rng.integers(0, genomes, reads)
    lengths = rng.integers(80, 160, reads)
    begin = rng.integers(0, bases - 160, reads)
    strand = rng.choice([1, -1], reads)
    end = begin + lengths
    found = [
        overlap(begin, end, strand, i, j)
        for i in range(reads)
        for j in range(i + 1, reads)
        if genome[i] == genome[j] and min(end[i], end[j]) - max(begin[i], begin[j]) >= 40
    ]
    columns = np.array(found).T
    columns[3] += rng.integers(-jitter, jitter + 1, columns.shape[1])  # an alignment may be off by gaps
    return Sequenced(genome, begin, lengths, strand, Overlaps(*columns))


def test_walks_go_straight_on_along_the_genome_and_reach_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "REACH_BASES", 1000)
    reads = sequenced(3, 600, bases=4000)
    left, right = chained_pairs(reads.lengths, reads.overlaps, np.random.default_rng(1))
    assert 600 < len(left) <= chains.PAIRS_A_READ * 600
    assert len(np.union1d(left, right)) > 590
    assert (left != right).all()
    np.testing.assert_array_equal(reads.genome[left], reads.genome[right])
    apart = np.abs(reads.begin[left] - reads.begin[right])
    assert apart.max() <= 1000 + 2 * 160
    assert (
        0.4 < np.mean(apart > 400) < 0.7
    )  # distances are uniform up to 1000, but for the ends of the genome


def test_gaps_of_alignments_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "REACH_BASES", 1000)
    reads = sequenced(2, 400, bases=4000, jitter=3)
    left, right = chained_pairs(reads.lengths, reads.overlaps, np.random.default_rng(1))
    np.testing.assert_array_equal(reads.genome[left], reads.genome[right])
    assert np.abs(reads.begin[left] - reads.begin[right]).max() > 800


def test_a_walk_along_three_reads_step_by_step() -> None:
    """Reads of 100 bases at 0, 60 and 120 of a sequence, the second one reversed."""
    columns = (
        overlap(np.array([0, 60, 120]), np.array([100, 160, 220]), np.array([1, -1, 1]), 0, 1),
        overlap(np.array([0, 60, 120]), np.array([100, 160, 220]), np.array([1, -1, 1]), 1, 2),
    )
    overlaps = Overlaps(*np.array(columns).T)
    found = set()
    for seed in range(20):
        left, right = chained_pairs(np.array([100, 100, 100]), overlaps, np.random.default_rng(seed))
        found |= set(zip(left.tolist(), right.tolist(), strict=True))
    # Walks are long, so they end at the ends.
    assert found == {(0, 2), (1, 2), (1, 0), (2, 0)}


def test_contained_reads_lead_nowhere() -> None:
    begin, end, strand = np.array([0, 20, 30]), np.array([100, 80, 90]), np.array([1, 1, -1])
    overlaps = Overlaps(*np.array([overlap(begin, end, strand, 0, 1), overlap(begin, end, strand, 0, 2)]).T)
    left, right = chained_pairs(end - begin, overlaps, np.random.default_rng(0))
    assert len(left) == len(right) == 0


def test_without_overlaps_there_are_no_pairs() -> None:
    nothing = Overlaps(*(np.empty(0, np.int64) for _ in range(6)))
    for lengths in (np.array([100, 100]), np.empty(0, np.int64)):
        left, right = chained_pairs(lengths, nothing, np.random.default_rng(0))
        assert len(left) == len(right) == 0
