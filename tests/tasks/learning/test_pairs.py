import numpy as np
import pyarrow as pa

from tasks.encoders.sequences import Sequences
from tasks.learning.pairs import (
    MIN_WINDOW,
    REACH_BASES,
    Mixture,
    PlacedPairs,
    ReadPairs,
    ReadWindows,
    mates,
    mutual_neighbours,
    pieces,
    templates_of,
)

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def texts(sequences: Sequences) -> list[str]:
    return [
        sequences.bases[start:stop].tobytes().decode()
        for start, stop in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    ]


def random_reads(*lengths: int) -> Sequences:
    random = np.random.default_rng(0)
    return Sequences.from_arrow(
        pa.array(["".join(random.choice(list("ACGT"), length)) for length in lengths], pa.string())
    )


def place(window: str, read: str) -> range:
    """Where the window, or its reverse complement, stands in the read."""
    start = max(read.find(window), read.find(window.translate(COMPLEMENT)[::-1]))
    assert start >= 0
    return range(start, start + len(window))


def test_windows_of_one_read_share_no_base() -> None:
    reads = random_reads(150)
    drawn = ReadWindows(reads).draw(np.random.default_rng(1), 200)
    for one, other in zip(texts(drawn.left), texts(drawn.right), strict=True):
        first, second = place(one, texts(reads)[0]), place(other, texts(reads)[0])
        assert len(first) >= MIN_WINDOW and len(second) >= MIN_WINDOW
        assert first.stop <= second.start


def test_a_short_read_gives_its_halves() -> None:
    drawn = ReadWindows(random_reads(61)).draw(np.random.default_rng(1), 50)
    assert set(drawn.left.lengths) <= {30, 31} and set(drawn.right.lengths) <= {30, 31}


def test_both_strands_are_drawn() -> None:
    reads = random_reads(100)
    drawn = ReadWindows(reads).draw(np.random.default_rng(1), 50)
    forward = [window in texts(reads)[0] for window in texts(drawn.left)]
    assert True in forward and False in forward


def test_the_same_random_state_draws_the_same_pairs() -> None:
    source = ReadWindows(random_reads(100, 150, 40))
    once, again = (source.draw(np.random.default_rng(5), 20) for _ in range(2))
    assert texts(once.left) == texts(again.left) and texts(once.right) == texts(again.right)


def test_pairs_of_reads_stay_together() -> None:
    reads = random_reads(80, 80, 80)
    source = ReadPairs(reads, np.array([0]), np.array([2]), ("mates",))
    drawn = source.draw(np.random.default_rng(1), 20)
    for one, other in zip(texts(drawn.left), texts(drawn.right), strict=True):
        place(one, texts(reads)[0])
        place(other, texts(reads)[2])


def test_a_mixture_draws_its_shares() -> None:
    short, long = ReadWindows(random_reads(20)), ReadWindows(random_reads(200))
    drawn = Mixture.of([(short, 3), (long, 1)]).draw(np.random.default_rng(1), 12)
    assert (drawn.left.lengths < 20).sum() == (drawn.right.lengths < 20).sum() == 9
    assert drawn.source.tolist() == [0] * 9 + [1] * 3


def test_sources_of_no_weight_or_no_pairs_are_left_out() -> None:
    nothing, reads = ReadWindows(random_reads(20), ("short",)), ReadWindows(random_reads(200))
    empty = ReadPairs(random_reads(50), np.empty(0, int), np.empty(0, int), ("mates",))
    mixture = Mixture.of([(nothing, 0), (empty, 1), (reads, 1)])
    assert mixture.names == reads.names and mixture.shares == (1.0,)
    drawn = mixture.draw(np.random.default_rng(1), 4)
    assert len(drawn.left) == 4 and drawn.left.lengths.min() >= MIN_WINDOW


def test_a_draw_too_small_for_a_source_holds_none_of_it() -> None:
    reads = ReadWindows(random_reads(100))
    drawn = Mixture.of([(reads, 1), (reads, 99)]).draw(np.random.default_rng(1), 10)
    assert len(drawn.left) == 10 and set(drawn.source.tolist()) == {1}


def placed(offsets: list[int], lines: list[int], length: int = 100) -> PlacedPairs:
    rows = np.arange(len(offsets))
    reads = random_reads(*[length] * len(offsets))
    return PlacedPairs.of(reads, rows, np.array(lines), np.array(offsets), "chain")


def partners(source: PlacedPairs) -> set[tuple[int, int]]:
    reads = texts(source.sequences)
    drawn = source.draw(np.random.default_rng(1), 300)
    found = set()
    for one, other in zip(texts(drawn.left), texts(drawn.right), strict=True):
        pair = [
            next(
                row
                for row, read in enumerate(reads)
                if window in read or window.translate(COMPLEMENT)[::-1] in read
            )
            for window in (one, other)
        ]
        found.add((pair[0], pair[1]))
    return found


def test_reads_on_one_line_are_pairs_where_they_share_no_base() -> None:
    source = placed([0, 60, 120, 0, 100], [0, 0, 0, 1, 1])
    assert partners(source) == {(0, 2), (3, 4)}
    assert source.covered.tolist() == [0, 2, 3, 4] and len(source) == 4


def test_reads_beyond_the_reach_are_no_pairs_and_lines_do_not_run_into_each_other() -> None:
    source = placed([0, REACH_BASES, REACH_BASES + 101, 50], [0, 0, 0, 1])
    assert partners(source) == {(0, 1), (1, 2)}


def test_without_two_reads_on_a_line_there_are_no_pairs() -> None:
    for source in (placed([], []), placed([0, 0], [0, 1]), placed([0, 10], [0, 0])):
        assert len(source) == 0


def test_mates_are_the_reads_of_one_template() -> None:
    ids = pa.chunked_array([["s:1/1", "s:1/2"], ["s:2/1", "t:1", "s:11/2", "s:11/1"]])
    assert templates_of(ids).to_pylist() == ["s:1", "s:1", "s:2", "t:1", "s:11", "s:11"]
    left, right = mates(ids)
    assert (left.tolist(), right.tolist()) == ([0, 4], [1, 5])


def test_windows_of_a_read_are_one_template_but_no_mates() -> None:
    ids = pa.array(
        ["s:1@0", "s:1@1800", "p:1/1@0", "p:1/1@1800", "p:1/2@0", "p:1/2@1800", "p:2/1", "p:2/2@0"]
    )
    assert templates_of(ids).to_pylist() == ["s:1"] * 2 + ["p:1"] * 4 + ["p:2"] * 2
    left, right = mates(ids)
    assert (left.tolist(), right.tolist()) == ([2, 6], [4, 7])
    row, read, offset = pieces(ids)
    assert row.tolist() == [0, 1, 2, 3, 4, 5, 7]
    assert read.tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert offset.tolist() == [0, 1800, 0, 1800, 0, 1800, 0]


def test_neighbours_must_be_mutual_and_teach_something() -> None:
    templates = pa.array(["s:1", "s:1", "s:2", "s:3", "s:4"])
    edges = [
        (0, 1, 0.9), (1, 0, 0.9),  # mates
        (0, 2, 0.8), (2, 0, 0.8),  # mutual
        (3, 0, 0.7),               # one way
        (2, 4, 1.0), (4, 2, 1.0),  # duplicates
        (4, 3, 0.6), (3, 4, 0.6),  # mutual
    ]  # fmt: skip
    query, neighbour, cosine = (np.array(column) for column in zip(*edges, strict=True))
    left, right = mutual_neighbours(query, neighbour, cosine, templates=templates)
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == [(0, 2), (3, 4)]


def test_no_edges_no_pairs() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    left, right = mutual_neighbours(nothing, nothing, nothing.astype(np.float32), templates=pa.array(["s:1"]))
    assert len(left) == len(right) == 0


def test_in_the_place_of_a_read_its_mate_may_be_taken() -> None:
    reads = random_reads(*[100] * 6)
    row, line, offset = np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]), np.array([0, 100, 0, 100])
    mates_of = np.array([1, 2]), np.array([4, 3])  # 1 and 4, which is on no line; 2 and 3, which are on one
    source = PlacedPairs.of(reads, row, line, offset, "chain", mates_of)
    assert partners(source) == {(0, 1), (0, 4), (2, 3)}
