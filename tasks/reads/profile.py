"""What reads look like: histograms that are summed, however the reads were split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.compiled import compiled
from tasks.reads.block import ReadBlock
from tasks.reads.duplicates import CopyCounts
from tasks.reads.length_bins import LONGEST_EXACT, SHORTEST_OF_BIN

HIGHEST_QUALITY = 60
POSITIONS = 500
BASES = "ACGTN"


def _zeros(*shape: int) -> Callable[[], np.ndarray]:
    return lambda: np.zeros(shape, dtype=np.int64)


@dataclass(frozen=True)
class ReadProfile:
    """Sums over reads; all arrays are int64. Mates are counted as two reads.

    Reads without base qualities are in all but ``mean_qualities``, ``position_quality_sum`` and
    ``position_count``.

    :param bases: number of bases.
    :param lengths: reads by length, in the bins of :mod:`tasks.reads.length_bins` (1321).
    :param mean_qualities: reads by mean Phred value rounded down, 0 to 60; higher ones count as 60 (61).
    :param gc_percents: reads by G + C among their A, C, G and T, percent rounded; without any, 0 (101).
    :param position_quality_sum: Phred values summed per position of the read, the first 500 (500).
    :param position_count: reads that have that position (500).
    :param position_bases: reads with A, C, G, T and N at that position (5, 500).
    :param copies: how often sequences occur, of a sample of them.
    """

    bases: int = 0
    lengths: np.ndarray = field(default_factory=_zeros(len(SHORTEST_OF_BIN)))
    mean_qualities: np.ndarray = field(default_factory=_zeros(HIGHEST_QUALITY + 1))
    gc_percents: np.ndarray = field(default_factory=_zeros(101))
    position_quality_sum: np.ndarray = field(default_factory=_zeros(POSITIONS))
    position_count: np.ndarray = field(default_factory=_zeros(POSITIONS))
    position_bases: np.ndarray = field(default_factory=_zeros(len(BASES), POSITIONS))
    copies: CopyCounts = field(default_factory=CopyCounts)

    @classmethod
    def of(cls, block: ReadBlock) -> ReadProfile:
        """The profile of a block's reads."""
        profile = cls(bases=len(block.sequence), copies=CopyCounts.of(block))
        coded = np.zeros((POSITIONS, 8), dtype=np.int64)
        _count_sequences(block.sequence, block.offsets, profile.lengths, profile.gc_percents, coded)
        profile.position_bases[:] = coded.T[[(ord(base) >> 1) & 7 for base in BASES]]
        if block.qualities_known:
            _count_qualities(
                block.quality,
                block.offsets,
                profile.mean_qualities,
                profile.position_quality_sum,
                profile.position_count,
            )
        return profile

    @property
    def reads(self) -> int:
        """How many reads were counted."""
        return int(self.lengths.sum())

    def __add__(self, other: ReadProfile) -> ReadProfile:
        mine, others = vars(self), vars(other)
        return ReadProfile(**{name: mine[name] + others[name] for name in mine})

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; lists are without their trailing zeros, ``position_bases`` is a list per base."""
        counts = {name: _trimmed(value) for name, value in vars(self).items() if _is_histogram(value)}
        by_base = {base: _trimmed(row) for base, row in zip(BASES, self.position_bases, strict=True)}
        return {"bases": self.bases, **counts, "position_bases": by_base, "copies": self.copies.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReadProfile:
        """What :meth:`to_json` gave."""
        profile = cls(bases=value["bases"], copies=CopyCounts.from_json(value["copies"]))
        for name, counts in vars(profile).items():
            if _is_histogram(counts):
                counts[: len(value[name])] = value[name]
        for base, counts in zip(BASES, profile.position_bases, strict=True):
            counts[: len(value["position_bases"][base])] = value["position_bases"][base]
        return profile


def _is_histogram(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == 1


def _trimmed(counts: np.ndarray) -> list[int]:
    return np.trim_zeros(counts, "b").tolist()


# In both loops below, a loop for each sum over a slice becomes vector instructions: a third of the time of one
# loop that does all.


@compiled
def _count_sequences(
    sequence: np.ndarray,
    offsets: np.ndarray,
    lengths: np.ndarray,
    gc_percents: np.ndarray,
    coded: np.ndarray,
) -> None:
    """Add each read to the histograms of :class:`ReadProfile`.

    :param coded: int64 (500, 8), reads by position and bits 1 to 3 of the base, which tell A, C, G, T, N apart.
    """
    for read in range(len(offsets) - 1):
        bases = sequence[offsets[read] : offsets[read + 1]]
        gc = called = 0
        for base in bases:
            gc += (base == 71) | (base == 67)  # G, C
        for base in bases:
            called += base != 78  # N
        length = len(bases)
        if length > LONGEST_EXACT:
            length = int(np.searchsorted(SHORTEST_OF_BIN, length, side="right")) - 1
        lengths[length] += 1
        gc_percents[(200 * gc + called) // (2 * called) if called else 0] += 1
        for position in range(min(len(bases), len(coded))):
            coded[position, (bases[position] >> 1) & 7] += 1


@compiled
def _count_qualities(
    quality: np.ndarray,
    offsets: np.ndarray,
    mean_qualities: np.ndarray,
    position_quality_sum: np.ndarray,
    position_count: np.ndarray,
) -> None:
    """Add each read to the histograms of :class:`ReadProfile`."""
    for read in range(len(offsets) - 1):
        values = quality[offsets[read] : offsets[read + 1]]
        total = 0
        for value in values:
            total += value
        mean_qualities[min(total // max(len(values), 1), len(mean_qualities) - 1)] += 1
        for position in range(min(len(values), len(position_count))):
            position_quality_sum[position] += values[position]
        for position in range(min(len(values), len(position_count))):
            position_count[position] += 1
