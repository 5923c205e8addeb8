"""Chains of verified overlaps: pairs of reads that lie far apart on one sequence, as no read or mate reaches.

How far positive pairs reach decides what the encoder learns: two windows of one read, or its mate, are close; reads
that a chain of overlaps joins may be 10 kb apart on the same genome.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

REACH_BASES = 10_000
"""Of the longest walks. Pairs from whole genomes told species apart hardly better, those within 2 kb worse."""
PAIRS_A_READ = 4


@dataclass(frozen=True)
class Overlaps:
    """Overlaps of reads, by their rows; int64 columns as in :mod:`hpc_jobs.align_pairs.overlaps`."""

    first: np.ndarray
    second: np.ndarray
    strand: np.ndarray
    first_begin: np.ndarray
    second_begin: np.ndarray
    second_end: np.ndarray


def chained_pairs(
    lengths: np.ndarray, overlaps: Overlaps, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pairs of reads, found by random walks along overlaps: at most four from each read.

    A walk keeps its direction: each step is to a random one of the reads that overlap the present one and reach
    beyond its end. It is over after a random distance below :data:`REACH_BASES`, or where nothing reaches further.
    A repeat may lead it elsewhere, so that few, not none, of the pairs are of two places.

    :param lengths: of all reads, in bases.
    """
    steps = _Steps.of(lengths, overlaps)
    starts = np.tile(np.flatnonzero(steps.counts), -(-PAIRS_A_READ // 2))  # two directions each
    state, remaining = starts.copy(), random.integers(0, REACH_BASES, len(starts))
    walking = np.arange(len(starts))
    while len(walking):
        at = state[walking]
        step = steps.begins[at] + (random.random(len(at)) * steps.counts[at]).astype(np.int64)
        state[walking] = steps.target[step]
        remaining[walking] -= steps.bases[step]
        walking = walking[(remaining[walking] > 0) & (steps.counts[state[walking]] > 0)]
    first, second = starts // 2, state // 2
    different = first != second
    return first[different], second[different]


@dataclass(frozen=True)
class _Steps:
    """Where a walk can go. State 2 r is read r, walked along its own strand, 2 r + 1 against it.

    The steps of state s are numbers ``begins[s]`` to ``begins[s] + counts[s]`` of ``target``, a state, and
    ``bases``, from the begin of the one read to that of the other.
    """

    begins: np.ndarray
    counts: np.ndarray
    target: np.ndarray
    bases: np.ndarray

    @classmethod
    def of(cls, lengths: np.ndarray, overlaps: Overlaps) -> _Steps:
        forward = overlaps.strand > 0
        first_length, second_length = lengths[overlaps.first], lengths[overlaps.second]
        # Where the other read begins, in bases from the begin of the one, along the strand of the one.
        shift = overlaps.first_begin + np.where(forward, -overlaps.second_begin, overlaps.second_end)
        of_second = np.where(forward, shift, shift - second_length)
        of_first = np.where(forward, -shift, shift - first_length)
        read = np.concatenate([overlaps.first, overlaps.second])
        other = np.concatenate([overlaps.second, overlaps.first])
        begin, turns = np.concatenate([of_second, of_first]), np.tile(~forward, 2)
        end = begin + lengths[other] - lengths[read]  # beyond the end of the read

        along, against = (begin > 0) & (end > 0), (begin < 0) & (end < 0)
        state = np.concatenate([2 * read[along], 2 * read[against] + 1])
        target = np.concatenate([2 * other[along] + turns[along], 2 * other[against] + ~turns[against]])
        bases = np.concatenate([begin[along], -end[against]])
        order = np.argsort(state, kind="stable")
        counts = np.bincount(state, minlength=2 * len(lengths))
        return cls(np.cumsum(counts) - counts, counts, target[order], bases[order])
