"""Positive pairs: two sequences that should get similar vectors, and where they come from.

From the surest to the weakest: two windows of one read, the two mates of one fragment, two reads that have
each other among their nearest neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.encoders.sequences import Sequences

MIN_WINDOW = 40
"""Shortest window in bases: in 36 5-mers there is still something of the genome they come from."""


class PairSource(Protocol):
    """Draws positive pairs, as many as asked for, the same ones from the same random state."""

    name: str

    def __len__(self) -> int:
        """How many different reads or pairs of reads there are to draw from."""
        ...

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """``count`` pairs, left and right."""
        ...


@dataclass(frozen=True)
class ReadWindows:
    """Two random windows of one read, each on a random strand."""

    sequences: Sequences
    name: str = "windows of one read"

    def __len__(self) -> int:
        return len(self.sequences)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """See :class:`PairSource`."""
        rows = random.integers(0, len(self.sequences), count)
        return cut_windows(self.sequences, rows, random), cut_windows(self.sequences, rows, random)


@dataclass(frozen=True)
class ReadPairs:
    """A random window of each of two reads that belong together: ``left[i]`` and ``right[i]`` are their rows."""

    sequences: Sequences
    left: np.ndarray
    right: np.ndarray
    name: str

    def __len__(self) -> int:
        return len(self.left)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """See :class:`PairSource`."""
        pairs = random.integers(0, len(self.left), count)
        return (
            cut_windows(self.sequences, self.left[pairs], random),
            cut_windows(self.sequences, self.right[pairs], random),
        )


@dataclass(frozen=True)
class Mixture:
    """Equal shares of several sources in every draw."""

    sources: Sequence[PairSource]
    name: str = "mixture"

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    def draw(self, random: np.random.Generator, count: int) -> tuple[Sequences, Sequences]:
        """See :class:`PairSource`; the first sources give one pair more where the shares are not whole."""
        shares = [
            count // len(self.sources) + (i < count % len(self.sources)) for i in range(len(self.sources))
        ]
        drawn = [source.draw(random, share) for source, share in zip(self.sources, shares, strict=True)]
        left, right = zip(*drawn, strict=True)
        return concatenate(left), concatenate(right)


def cut_windows(sequences: Sequences, rows: np.ndarray, random: np.random.Generator) -> Sequences:
    """A random window of each of ``rows``: 40 bases (or the whole of a shorter read) up to all of it, any strand."""
    lengths = sequences.lengths[rows]
    shortest = np.minimum(lengths, np.maximum(MIN_WINDOW, lengths // 2))
    window = random.integers(shortest, lengths + 1)
    starts = random.integers(0, lengths - window + 1)
    return sequences.windows(rows, starts, window, random.random(len(rows)) < 0.5)


def concatenate(parts: Sequence[Sequences]) -> Sequences:
    """The sequences of all parts in one buffer; each part's buffer must hold nothing else."""
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return Sequences(np.concatenate([part.bases for part in parts]), offsets)
