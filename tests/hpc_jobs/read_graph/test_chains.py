from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import pytest

from hpc_jobs.read_graph.chains import SCHEMA, ChainLimits, Overlaps, chains

LIMITS = ChainLimits()
GENOMES, BASES, REPEAT, REPEAT_AT = 6, 40_000, 2_000, 15_000


@dataclass(frozen=True)
class Reads:
    """True places: genome, leftmost base, strand; chimeras carry a second place from the middle on."""

    genome: np.ndarray
    begin: np.ndarray
    strand: np.ndarray
    length: int
    chimera: np.ndarray


def sequenced(coverage: float, length: int, chimeras: float = 0.005, seed: int = 1) -> Reads:
    random = np.random.default_rng(seed)
    count = int(GENOMES * BASES * coverage / length)
    return Reads(
        random.integers(0, GENOMES, count),
        random.integers(0, BASES - length, count),
        random.choice([-1, 1], count),
        length,
        random.random(count) < chimeras,
    )


def pieces(reads: Reads, seed: int = 2) -> list[tuple[int, int, int, int, int]]:
    """Read, sequence, begin and end on it, bases of the read (along the genome) to the left of the piece."""
    random = np.random.default_rng(seed)
    found = []
    for read in range(len(reads.genome)):
        genome, begin = int(reads.genome[read]), int(reads.begin[read])
        half = reads.length // 2 if reads.chimera[read] else reads.length
        parts = [(genome, begin, begin + half, 0)]
        if half < reads.length:
            place = int(random.integers(0, BASES - reads.length))
            parts.append((int(random.integers(0, GENOMES)), place, place + reads.length - half, half))
        for on, low, high, left in parts:
            found.append((read, on, low, high, left))
            if on < 2:  # both carry the repeat: the piece inside it is also of sequence -1
                inside = max(low, REPEAT_AT), min(high, REPEAT_AT + REPEAT)
                if inside[1] > inside[0]:
                    found.append((read, -1, *inside, left + inside[0] - low))
    return found


def aligned(reads: Reads) -> Overlaps:
    """All overlaps of at least 50 bases, the longest of each pair, in coordinates of the reads' own strands."""
    best: dict[tuple[int, int], tuple[int, ...]] = {}
    ordered = sorted(pieces(reads), key=lambda piece: piece[1:3])
    for number, (one, on, low, high, left) in enumerate(ordered):
        for other, on_other, low_other, high_other, left_other in ordered[number + 1 :]:
            if on_other != on or low_other > high - 50:
                break
            begin, end = max(low, low_other), min(high, high_other)
            if one == other or end - begin < 50:
                continue
            spans = {}
            for read, start in ((one, left + begin - low), (other, left_other + begin - low_other)):
                span = start, start + end - begin
                spans[read] = (
                    span if reads.strand[read] > 0 else (reads.length - span[1], reads.length - span[0])
                )
            first, second = sorted((one, other))
            row = (end - begin, int(reads.strand[one] * reads.strand[other]), *spans[first], *spans[second])
            best[first, second] = max(best.get((first, second), (0,)), row)
    return overlap(*((*pair, *row[1:]) for pair, row in best.items()))


def overlap(*rows: tuple[int, ...]) -> Overlaps:
    """First, second, strand, begin and end on the first, begin and end on the second."""
    first, second, strand, begin, end, other_begin, other_end = np.array(rows, np.int64).reshape(-1, 7).T
    identity = np.ones(len(rows), np.float32)
    return Overlaps(first, second, strand, begin, end, other_begin, other_end, end - begin, identity)


def placements(lengths: list[int], overlaps: Overlaps) -> list[tuple[int, ...]]:
    table = chains(np.array(lengths), overlaps, LIMITS)
    return [tuple(row.values()) for row in table.to_pylist()]


@pytest.mark.parametrize(
    ("length", "coverage", "reaches", "of_one_genome"),
    [
        (500, 2, 1_000, 0.98),
        (500, 5, 8_000, 0.99),
        (500, 10, 15_000, 0.99),
        (150, 2, 200, 0.98),
        (150, 5, 1_000, 0.99),
        (150, 10, 8_000, 0.99),
    ],
)
def test_chains_are_of_one_genome_and_as_long_as_coverage_allows(
    length: int, coverage: int, reaches: int, of_one_genome: float
) -> None:
    # One seed. Of 24 at 2x, and 12 at 5x and 10x, mean and lowest of the share that is of one genome: 500 bp 0.991
    # and 0.965 (2x), 0.996 and 0.975 (5x), 1 and 1 (10x); 150 bp 0.982 and 0.951 (2x), 1 and 0.999 (5x), 1 and 1
    # (10x); of eight more at 2x the lowest are 0.917 and 0.958. At 2x 0.99 is out of reach for every seed: of five
    # borders of a repeat one has no read of the other genome across it, which looks as if there were none; and
    # inside of a repeat two genomes at 2x are what one at 4x is. So 0.98 stands there: it notices what is worse.
    reads = sequenced(coverage, length)
    table = chains(np.full(len(reads.genome), length), aligned(reads), LIMITS)
    read, chain = table["read"].to_numpy(), table["chain"].to_numpy()
    offset, strand = table["offset"].to_numpy(), table["strand"].to_numpy()
    pairs = agree = placed = 0
    spans = []
    for number in range(chain.max() + 1):
        on = chain == number
        rows, at, way = read[on], offset[on], strand[on] * reads.strand[read[on]]
        spans.append(at.max() + length)
        one, two = np.triu_indices(len(rows), 1)
        same = reads.genome[rows[one]] == reads.genome[rows[two]]
        pairs, agree = pairs + len(one), agree + int(same.sum())
        true = (reads.begin[rows[two]] - reads.begin[rows[one]]) * way[one]
        right = same & (way[one] == way[two]) & (np.abs(at[two] - at[one] - true) <= LIMITS.tolerance)
        placed += int(right.sum())
    ordered = np.sort(spans)[::-1]
    n50 = ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)]
    share = len(read) / len(reads.genome)
    said = f"{length} bp {coverage}x: N50 {n50}, one genome {agree / pairs:.4f}, placed {placed / pairs:.4f}"
    said += f", reads on chains {share:.3f}"
    print(said)
    assert agree >= of_one_genome * pairs, said
    assert placed >= of_one_genome * pairs, said
    assert n50 >= reaches, said


def test_the_order_of_overlaps_does_not_matter() -> None:
    reads = sequenced(5, 500)
    overlaps, lengths = aligned(reads), np.full(len(reads.genome), 500)
    order = np.random.default_rng(3).permutation(len(overlaps.first))
    shuffled = Overlaps(*(getattr(overlaps, field.name)[order] for field in fields(overlaps)))
    assert chains(lengths, shuffled, LIMITS).equals(chains(lengths, overlaps, LIMITS))


def test_strands_turn_and_contained_reads_are_placed_on_their_container() -> None:
    # Read 1 reversed, 60 to the right of 0; read 2, of 50 bases, reversed inside read 1, so along read 0.
    overlaps = overlap((0, 1, -1, 60, 200, 60, 200), (1, 2, -1, 100, 150, 0, 50))
    assert placements([200, 200, 50], overlaps) == [(0, 0, 0, 1), (1, 0, 60, -1), (2, 0, 110, 1)]


def test_a_circle_is_cut_at_its_lowest_row() -> None:
    overlaps = overlap((0, 1, 1, 60, 200, 0, 140), (1, 2, 1, 60, 200, 0, 140), (0, 2, 1, 0, 140, 60, 200))
    assert placements([200] * 3, overlaps) == [(0, 0, 0, 1), (1, 0, 60, 1), (2, 0, 120, 1)]


def test_no_overlaps_no_chains() -> None:
    for lengths in ([], [100, 100]):
        table = chains(np.array(lengths, np.int64), overlap(), LIMITS)
        assert table.num_rows == 0 and table.schema == SCHEMA


def test_overlaps_with_itself_palindromes_and_alignments_inside_both_reads_do_not_link() -> None:
    itself = (0, 0, -1, 0, 200, 0, 200)
    inside = (0, 1, 1, 50, 150, 50, 150)
    assert placements([200, 200], overlap(itself, inside)) == []
    # The end of read 0 is a palindrome: read 1 continues it on either strand, which is a branch.
    both = overlap((0, 1, 1, 140, 200, 0, 60), (0, 1, -1, 140, 200, 140, 200))
    assert placements([200, 200], both) == []


def test_limits_leave_overlaps_out() -> None:
    overlaps = overlap((0, 1, 1, 100, 200, 0, 100))
    assert len(placements([200, 200], overlaps)) == 2
    assert placements([200, 200], replace(overlaps, identity=np.array([0.9]))) == []
    assert placements([200, 200], replace(overlaps, length=np.array([40]))) == []


def test_a_read_that_its_containers_place_differently_is_left_out() -> None:
    overlaps = overlap((0, 1, 1, 100, 200, 0, 100), (0, 2, 1, 20, 80, 0, 60), (1, 2, 1, 120, 180, 0, 60))
    assert [row[0] for row in placements([200, 200, 60], overlaps)] == [0, 1]


def test_overlaps_are_removed_alike_however_many_are_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = sequenced(5, 500)
    overlaps, lengths = aligned(reads), np.full(len(reads.genome), 500)
    at_once = chains(lengths, overlaps, LIMITS)
    monkeypatch.setattr("hpc_jobs.read_graph.chains.STEPS_AT_ONCE", 100)
    assert chains(lengths, overlaps, LIMITS).equals(at_once)


def test_what_there_is_more_of_is_no_repeat() -> None:
    random, length = np.random.default_rng(5), 500
    genome = np.concatenate([np.repeat(np.arange(GENOMES - 1), 320), np.repeat(GENOMES - 1, 1_600)])
    begin = random.integers(0, BASES - length, len(genome))
    strand = random.choice([-1, 1], len(genome))
    reads = Reads(genome, begin, strand, length, np.zeros(len(genome), bool))
    on_chains = chains(np.full(len(genome), length), aligned(reads), LIMITS)["read"].to_numpy()
    assert np.isin(np.flatnonzero(genome == GENOMES - 1), on_chains).mean() > 0.95
    in_repeat = (genome < 2) & (begin > REPEAT_AT) & (begin < REPEAT_AT + REPEAT - length)
    assert np.isin(np.flatnonzero(in_repeat), on_chains).mean() < 0.2
