from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hpc_jobs.align_pairs.alignment import Aligner, Overlap, lowest_score

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
ANY = Aligner(minimum_length=1, minimum_identity=0)


def bases(count: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), count))


def reverse_complement(sequence: str) -> str:
    return sequence.translate(COMPLEMENT)[::-1]


def overlap(first: str, second: str, aligner: Aligner = ANY) -> Overlap | None:
    return aligner.overlap(first.encode(), second.encode())


@dataclass(frozen=True)
class Column:
    """Where an alignment stands after so many bases of both reads, and whether a gap is open."""

    score: float
    ways: frozenset[tuple[int, int, int, int]]
    """(begin in first, begin in second, columns, matches) of every alignment with this score."""


NOWHERE = Column(-np.inf, frozenset())


def best(*columns: Column) -> Column:
    score = max(column.score for column in columns)
    return Column(score, frozenset().union(*(column.ways for column in columns if column.score == score)))


def further(column: Column, score: int, matches: int = 0) -> Column:
    ways = frozenset((i, j, columns + 1, m + matches) for i, j, columns, m in column.ways)
    return Column(column.score + score, ways)


def all_best_alignments(first: str, second: str) -> tuple[int, set[tuple[int, int, int, int, int, int]]]:
    """The best score with free ends (Gotoh 1982), and begins, ends, columns and matches of all that reach it."""

    def start(i: int, j: int) -> Column:
        return Column(0, frozenset({(i, j, 0, 0)}))

    aligned = {(i, 0): start(i, 0) for i in range(len(first) + 1)}
    aligned |= {(0, j): start(0, j) for j in range(len(second) + 1)}
    in_first: dict[tuple[int, int], Column] = {}
    in_second: dict[tuple[int, int], Column] = {}
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            up, left = (i - 1, j), (i, j - 1)
            in_first[i, j] = best(further(aligned[up], -6), further(in_first.get(up, NOWHERE), -2))
            in_second[i, j] = best(further(aligned[left], -6), further(in_second.get(left, NOWHERE), -2))
            x, y = first[i - 1], second[j - 1]
            score = -1 if "N" in (x, y) else 2 if x == y else -4
            aligned[i, j] = best(
                further(aligned[i - 1, j - 1], score, int(score == 2)), in_first[i, j], in_second[i, j]
            )
    ends = {key: value for key, value in aligned.items() if key[0] == len(first) or key[1] == len(second)}
    score = max(column.score for column in ends.values())
    found = {
        (a, b, i, j, columns, matches)
        for (i, j), column in ends.items()
        if column.score == score
        for a, b, columns, matches in column.ways
    }
    return int(score), found


def related(seed: int) -> tuple[str, str]:
    """Two short reads of one place, with errors, Ns, and on either strand."""
    rng = np.random.default_rng(seed)
    genome = bases(60, seed)
    reads = []
    for _ in range(2):
        begin = int(rng.integers(0, 25))
        read = list(genome[begin : begin + int(rng.integers(12, 32))])
        for place in np.flatnonzero(rng.random(len(read)) < 0.12):
            read[place] = str(rng.choice(["A", "C", "G", "T", "N", "", "AC"]))
        reads.append("".join(read))
    return reads[0], reverse_complement(reads[1]) if seed % 2 else reads[1]


@pytest.mark.parametrize("seed", range(60))
def test_what_is_found_is_among_the_best_alignments_of_plain_dynamic_programming(seed: int) -> None:
    first, second = related(seed)
    forward, reverse = (all_best_alignments(first, strand) for strand in (second, reverse_complement(second)))
    found = overlap(first, second)
    if max(forward[0], reverse[0]) <= 0:
        assert found is None
        return
    assert found is not None
    assert found.score == max(forward[0], reverse[0])
    assert found.strand == (1 if forward[0] >= reverse[0] else -1)
    begin, end = found.second_begin, found.second_end
    if found.strand < 0:
        begin, end = len(second) - end, len(second) - begin
    matches = round(found.identity * found.length)
    described = (found.first_begin, begin, found.first_end, end, found.length, matches)
    assert described in (forward if found.strand > 0 else reverse)[1]


def test_a_dovetail_on_both_strands() -> None:
    genome = bases(300, 1)
    first, second = genome[:180], genome[100:]
    assert overlap(first, second) == Overlap(1, 100, 180, 0, 80, 80, 1.0, 160)
    assert overlap(first, reverse_complement(second)) == Overlap(-1, 100, 180, 120, 200, 80, 1.0, 160)


def test_a_contained_read_and_an_identical_one() -> None:
    genome = bases(200, 2)
    assert overlap(genome, genome[60:110]) == Overlap(1, 60, 110, 0, 50, 50, 1.0, 100)
    assert overlap(genome[60:110], genome) == Overlap(1, 0, 50, 60, 110, 50, 1.0, 100)
    assert overlap(genome, genome) == Overlap(1, 0, 200, 0, 200, 200, 1.0, 400)


def test_errors_and_gaps_lower_the_identity() -> None:
    genome = bases(100, 3)
    swapped = genome[:50] + ("A" if genome[50] != "A" else "C") + genome[51:]
    found = overlap(genome, swapped)
    assert found is not None
    assert (found.length, found.identity) == (100, 0.99)
    deleted = overlap(genome, genome[:40] + genome[43:])
    assert deleted is not None
    assert (deleted.first_end, deleted.second_end, deleted.length) == (100, 97, 100)
    assert deleted.identity == pytest.approx(0.97)


def test_what_is_no_base_matches_nothing_and_case_does_not_matter() -> None:
    genome = bases(80, 4)
    unknown = genome[:30] + "NNNN" + genome[34:]
    found = overlap(unknown, unknown)
    assert found is not None
    assert (found.length, found.identity, found.score) == (80, 76 / 80, 76 * 2 - 4)
    assert overlap("N" * 50, "N" * 50) is None
    assert overlap("RYK" * 10, "RYK" * 10) is None
    assert overlap(genome.lower().replace("t", "u"), genome) == overlap(genome, genome)


@pytest.mark.parametrize(("first", "second"), [("", ""), ("", "ACGT"), ("ACGT", ""), ("A", "C")])
def test_reads_without_bases_or_without_a_common_one_do_not_overlap(first: str, second: str) -> None:
    assert overlap(first, second) is None


def test_the_longest_reads_keep_their_whole_score() -> None:
    genome = bases(16_000, 5)
    assert overlap(genome, genome) == Overlap(1, 0, 16_000, 0, 16_000, 16_000, 1.0, 32_000)


def test_the_minima_decide_and_the_lowest_score_never_decides_otherwise() -> None:
    strict = Aligner(minimum_length=10, minimum_identity=0.85)
    kept = 0
    for seed in range(200):
        first, second = related(seed)
        found = overlap(first, second)
        good = found is not None and found.length >= 10 and found.identity >= 0.85
        assert overlap(first, second, strict) == (found if good else None)
        kept += good
    assert 20 < kept < 180
    assert lowest_score(50, 1.0) == 100
    assert lowest_score(50, 0.7) == 1
