import numpy as np
import pyarrow as pa

from tasks.encoders.sequences import Sequences
from tasks.learning.pairs import (
    MIN_WINDOW,
    Mixture,
    ReadPairs,
    ReadWindows,
    mates,
    mutual_neighbours,
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
        pa.array(["".join(random.choice(list("ACGT"), length)) for length in lengths])
    )


def place(window: str, read: str) -> range:
    """Where the window, or its reverse complement, stands in the read."""
    start = max(read.find(window), read.find(window.translate(COMPLEMENT)[::-1]))
    assert start >= 0
    return range(start, start + len(window))


def test_windows_of_one_read_share_no_base() -> None:
    reads = random_reads(150)
    left, right = ReadWindows(reads).draw(np.random.default_rng(1), 200)
    for one, other in zip(texts(left), texts(right), strict=True):
        first, second = place(one, texts(reads)[0]), place(other, texts(reads)[0])
        assert len(first) >= MIN_WINDOW and len(second) >= MIN_WINDOW
        assert first.stop <= second.start


def test_a_short_read_gives_its_halves() -> None:
    left, right = ReadWindows(random_reads(61)).draw(np.random.default_rng(1), 50)
    assert set(left.lengths) <= {30, 31} and set(right.lengths) <= {30, 31}


def test_both_strands_are_drawn() -> None:
    reads = random_reads(100)
    left, _ = ReadWindows(reads).draw(np.random.default_rng(1), 50)
    forward = [window in texts(reads)[0] for window in texts(left)]
    assert True in forward and False in forward


def test_the_same_random_state_draws_the_same_pairs() -> None:
    source = ReadWindows(random_reads(100, 150, 40))
    once, again = (source.draw(np.random.default_rng(5), 20) for _ in range(2))
    assert [texts(side) for side in once] == [texts(side) for side in again]


def test_pairs_of_reads_stay_together() -> None:
    reads = random_reads(80, 80, 80)
    source = ReadPairs(reads, np.array([0]), np.array([2]), "mates")
    left, right = source.draw(np.random.default_rng(1), 20)
    for one, other in zip(texts(left), texts(right), strict=True):
        place(one, texts(reads)[0])
        place(other, texts(reads)[2])


def test_a_mixture_draws_its_shares() -> None:
    short, long = ReadWindows(random_reads(20)), ReadWindows(random_reads(200))
    left, right = Mixture([short, long], [3, 1]).draw(np.random.default_rng(1), 12)
    assert (left.lengths < 20).sum() == (right.lengths < 20).sum() == 9
    assert len(left) == len(right) == 12


def test_a_share_of_nothing_is_left_out() -> None:
    nothing, reads = ReadWindows(random_reads(20)), ReadWindows(random_reads(200))
    left, _ = Mixture([nothing, reads], [0, 1]).draw(np.random.default_rng(1), 4)
    assert len(left) == 4 and left.lengths.min() >= MIN_WINDOW


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
