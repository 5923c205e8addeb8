"""Positive pairs: two sequences that should get similar vectors, and where they come from.

From the surest to the weakest: two windows of one read, the two mates of one fragment, two reads that have
each other among their nearest neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.encoders.sequences import Sequences

MIN_WINDOW = 40
"""Shortest window in bases: its 36 5-mers still say something of the genome they come from."""

SAME_VECTOR = 1 - 1e-5
"""From this cosine on, two reads are duplicates (of either strand): nothing is left to learn from them."""


class PairSource(Protocol):
    """Draws positive pairs, as many as asked for, and the same ones from the same random state."""

    @property
    def name(self) -> str:
        """What the pairs are, for the encoder's card."""
        ...

    def __len__(self) -> int:
        """How many different reads or pairs of reads there are to draw from."""
        ...

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """``count`` pairs, left and right."""
        ...


@dataclass(frozen=True)
class ReadWindows:
    """Two windows of one read that share no base, each on a random strand.

    Overlapping windows are found by the k-mers they share, before anything is learnt: trained on them, the
    encoder was worse at telling species apart than the k-mer profile itself.
    """

    sequences: Sequences
    name: str = "windows of one read"

    def __len__(self) -> int:
        return len(self.sequences)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """See :class:`PairSource`."""
        rows = random.integers(0, len(self.sequences), count)
        lengths = self.sequences.lengths[rows]
        shortest = np.minimum(MIN_WINDOW, lengths // 2)
        cuts = random.integers(shortest, lengths - shortest + 1)
        return (
            _random_windows(self.sequences, rows, 0 * cuts, cuts, random),
            _random_windows(self.sequences, rows, cuts, lengths, random),
        )


@dataclass(frozen=True)
class ReadPairs:
    """A random window of each of two reads that belong together: rows ``left[i]`` and ``right[i]``."""

    sequences: Sequences
    left: np.ndarray
    right: np.ndarray
    name: str

    def __len__(self) -> int:
        return len(self.left)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """See :class:`PairSource`."""
        pairs = random.integers(0, len(self.left), count)
        left, right = (
            _random_windows(self.sequences, rows, 0 * rows, self.sequences.lengths[rows], random)
            for rows in (self.left[pairs], self.right[pairs])
        )
        return left, right


@dataclass(frozen=True)
class Mixture:
    """Several sources in every draw, in shares proportional to ``weights``."""

    sources: list[PairSource]
    weights: list[float]

    @property
    def name(self) -> str:
        """The names of the sources."""
        return " + ".join(source.name for source in self.sources)

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """See :class:`PairSource`; a draw holds the sources one after the other."""
        ends = np.rint(np.cumsum(self.weights) / sum(self.weights) * count).astype(int)
        shares = np.diff(ends, prepend=0)
        drawn = [
            source.draw(random, share) for source, share in zip(self.sources, shares, strict=True) if share
        ]
        left, right = zip(*drawn, strict=True)
        return Sequences.concatenate(list(left)), Sequences.concatenate(list(right))


def templates_of(read_ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The template of each vector: its id without ``/1`` or ``/2``, which mates differ in, and ``@offset``."""
    ids = read_ids.combine_chunks() if isinstance(read_ids, pa.ChunkedArray) else read_ids
    return pc.replace_substring_regex(ids, pattern=r"(/[12])?(@\d+)?$", replacement="")


def mates(read_ids: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the two reads of every template that has two, in the order in which they stand.

    Of a mate that was cut into windows, the first one; windows of one read are no mates, and may overlap.
    """
    rows = np.flatnonzero(pc.match_substring_regex(read_ids, r"/[12](@0)?$").to_numpy(zero_copy_only=False))
    templates = templates_of(read_ids).take(pa.array(rows))
    codes = templates.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    first = np.flatnonzero(sorted_codes[:-1] == sorted_codes[1:])
    return rows[order[first]], rows[order[first + 1]]


def mutual_neighbours(
    query: np.ndarray, neighbour: np.ndarray, cosine: np.ndarray, *, templates: pa.Array
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of reads that each name the other as a neighbour, each pair once; left row < right row.

    Without mates (they are a source of their own) and without duplicates.

    :param query, neighbour: rows of ``templates``, one edge each, int64.
    :param cosine: similarity of the edge, float32.
    """
    codes = templates.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    wanted = (cosine < SAME_VECTOR) & (codes[query] != codes[neighbour])
    query, neighbour = query[wanted].astype(np.int64), neighbour[wanted].astype(np.int64)
    rows = len(templates)
    mutual = np.intersect1d(query * rows + neighbour, neighbour * rows + query)
    left, right = np.divmod(mutual, max(rows, 1))
    once = left < right
    return left[once], right[once]


def _random_windows(
    sequences: Sequences,
    rows: np.ndarray,
    first: np.ndarray,
    end: np.ndarray,
    random: np.random.Generator,
) -> Sequences:
    """A window within bases ``first`` to ``end`` of each row, of random length (40 bases or more) and strand."""
    available = end - first
    lengths = random.integers(np.minimum(MIN_WINDOW, available), available + 1)
    starts = first + random.integers(0, available - lengths + 1)
    return sequences.windows(rows, starts, lengths, random.random(len(rows)) < 0.5)
