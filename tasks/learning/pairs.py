"""Positive pairs: two sequences that should get similar vectors, and where they come from.

From the surest to the weakest: two windows of one read, the two mates of one fragment, two reads far apart on one
chain of verified overlaps, two reads that have each other among their nearest neighbours. How far apart on the
genome the two of a pair lie decides what the encoder learns.
"""

from __future__ import annotations

from collections.abc import Iterable
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

REACH_BASES = 10_000
"""Of pairs on one chain. Pairs from whole genomes told species apart hardly better, those within 2 kb worse."""


@dataclass(frozen=True)
class Drawn:
    """Positive pairs: sequence i of ``left`` belongs to sequence i of ``right``.

    :param source: int8, (pairs,); which of the source's ``names`` the pair comes from.
    """

    left: Sequences
    right: Sequences
    source: np.ndarray


class PairSource(Protocol):
    """Draws positive pairs, as many as asked for, and the same ones from the same random state."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the pairs are, for the encoder's card."""
        ...

    def __len__(self) -> int:
        """How many different reads or pairs of reads there are to draw from."""
        ...

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        """``count`` pairs."""
        ...


@dataclass(frozen=True)
class ReadWindows:
    """Two windows of one read that share no base, each on a random strand.

    Overlapping windows are found by the k-mers they share, before anything is learnt: trained on them, the
    encoder was worse at telling species apart than the k-mer profile itself.
    """

    sequences: Sequences
    names: tuple[str, ...] = ("windows of one read",)

    def __len__(self) -> int:
        return len(self.sequences)

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        """See :class:`PairSource`."""
        rows = random.integers(0, len(self.sequences), count)
        lengths = self.sequences.lengths[rows]
        shortest = np.minimum(MIN_WINDOW, lengths // 2)
        cuts = random.integers(shortest, lengths - shortest + 1)
        return _of_one_source(
            _random_windows(self.sequences, rows, 0 * cuts, cuts, random),
            _random_windows(self.sequences, rows, cuts, lengths, random),
        )


@dataclass(frozen=True)
class ReadPairs:
    """A random window of each of two reads that belong together: rows ``left[i]`` and ``right[i]``."""

    sequences: Sequences
    left: np.ndarray
    right: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.left)

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        """See :class:`PairSource`."""
        pairs = random.integers(0, len(self.left), count)
        return windows_of_two(self.sequences, self.left[pairs], self.right[pairs], random)


@dataclass(frozen=True)
class PlacedPairs:
    """A random window of each of two reads that lie on one line, a chain or a long read that was cut, but apart.

    The two share no base and begin at most :data:`REACH_BASES` from each other, at a random one of these
    distances as far as the line reaches. ``rows`` are the placed reads along their lines; read ``rows[i]`` may be
    drawn with each of ``rows[first[i]:end[i]]``. In the place of a drawn read its mate, ``further[i]``, is taken in
    half of the cases: of a short chain it is beyond the end.
    """

    sequences: Sequences
    rows: np.ndarray
    first: np.ndarray
    end: np.ndarray
    further: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        sequences: Sequences,
        rows: np.ndarray,
        line: np.ndarray,
        offset: np.ndarray,
        name: str,
        mates: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> PlacedPairs:
        """From where reads lie.

        :param rows: of ``sequences``, int64; each at most once.
        :param line, offset: of each of ``rows``: the line's number, from 0, and its leftmost base there, from 0.
        :param mates: rows of the two reads of every template that has two; without them reads are drawn themselves.
        """
        further = np.arange(len(sequences))
        if mates is not None:
            left, right = mates
            further[left], further[right] = right, left
        order = np.lexsort((offset, line))
        rows, line, offset = rows[order], line[order], offset[order]
        beyond = offset + sequences.lengths[rows]
        # One number for each place: the reach from one line must not lead into the next.
        apart = int(beyond.max(initial=0)) + REACH_BASES + 1
        place = line * apart + offset
        first = np.searchsorted(place, line * apart + beyond)
        end = np.searchsorted(place, place + REACH_BASES, side="right")
        return cls(sequences, rows, first, end, further[rows], (name,))

    @property
    def covered(self) -> np.ndarray:
        """Rows that are in some pair, int64."""
        has_partner = self.first < self.end
        opens = np.bincount(self.first[has_partner], minlength=len(self.rows) + 1)
        closes = np.bincount(self.end[has_partner], minlength=len(self.rows) + 1)
        is_partner = np.cumsum(opens - closes)[:-1] > 0
        return np.asarray(self.rows[has_partner | is_partner])

    def __len__(self) -> int:
        return len(self.covered)

    def one_each(self, random: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of pairs, at most so many, in which no read is the first of two: each with a random partner."""
        (begins,) = np.nonzero(self.first < self.end)
        one = random.permutation(begins)[:most]
        return self.rows[one], self.rows[random.integers(self.first[one], self.end[one])]

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        """See :class:`PairSource`."""
        (begins,) = np.nonzero(self.first < self.end)
        one = begins[random.integers(0, len(begins), count)]
        other = random.integers(self.first[one], self.end[one])
        left, right = (
            np.where(random.random(count) < 0.5, self.further[drawn], self.rows[drawn])
            for drawn in (one, other)
        )
        # Of one template nothing is left to be far apart: mates that are on one line.
        alike = self.further[one] == self.rows[other]
        left, right = np.where(alike, self.rows[one], left), np.where(alike, self.rows[other], right)
        return windows_of_two(self.sequences, left, right, random)


@dataclass(frozen=True)
class Mixture:
    """Several sources in every draw, in shares proportional to ``weights``, each above 0."""

    sources: tuple[PairSource, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, weighted: Iterable[tuple[PairSource, float]]) -> Mixture:
        """From sources and their weights; those that have no pairs or no weight are left out."""
        used = [(source, weight) for source, weight in weighted if weight > 0 and len(source)]
        return cls(tuple(source for source, _ in used), tuple(weight for _, weight in used))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all sources."""
        return tuple(name for source in self.sources for name in source.names)

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, as shares of 1."""
        return tuple(weight / sum(self.weights) for weight in self.weights)

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        """See :class:`PairSource`; a draw holds the sources one after the other."""
        ends = np.rint(np.cumsum(self.weights) / sum(self.weights) * count).astype(int)
        shares = np.diff(ends, prepend=0)
        before = np.cumsum([0, *(len(source.names) for source in self.sources)])
        drawn = [source.draw(random, share) for source, share in zip(self.sources, shares, strict=True)]
        return Drawn(
            Sequences.concatenate([each.left for each in drawn]),
            Sequences.concatenate([each.right for each in drawn]),
            np.concatenate([each.source + names for each, names in zip(drawn, before, strict=False)]).astype(
                np.int8
            ),
        )


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


def pieces(read_ids: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pieces of long reads that were cut: rows, the number of their read, and their offset in it, int64."""
    ids = read_ids.combine_chunks() if isinstance(read_ids, pa.ChunkedArray) else read_ids
    found = pc.extract_regex(ids, r"^(?P<read>.*)@(?P<offset>\d+)$")
    rows = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    found = found.take(pa.array(rows))
    read = found.field("read").dictionary_encode().indices.to_numpy(zero_copy_only=False)
    offset = found.field("offset").cast(pa.int64()).to_numpy(zero_copy_only=False)
    return rows, read.astype(np.int64), offset


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


def windows_of_two(
    sequences: Sequences, left: np.ndarray, right: np.ndarray, random: np.random.Generator
) -> Drawn:
    """A random window of each of two reads, for every pair of rows."""
    lengths = sequences.lengths
    return _of_one_source(
        _random_windows(sequences, left, 0 * left, lengths[left], random),
        _random_windows(sequences, right, 0 * right, lengths[right], random),
    )


def _of_one_source(left: Sequences, right: Sequences) -> Drawn:
    return Drawn(left, right, np.zeros(len(left), np.int8))


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
