"""Chains of reads: verified overlaps laid out in order, strand and offset, as far as they lead without a choice.

A string graph (Myers 2005, "The fragment assembly string graph"): contained reads are no links, overlaps that two
shorter steps explain are removed, and chains are the paths that do not branch. No library does this from what we
have: assemblers such as miniasm are programs that read overlaps of their own in PAF and write sequences, and
igraph knows neither strands nor lengths; what is needed of the graph is a join of two tables and a walk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from igraph import Graph

STEPS_AT_ONCE = 1_000_000
GROUP_BASES = 10_000
"""Of chains that tell how dense a genome's reads are; a repeat of bacteria has up to 7,000."""
SCHEMA = pa.schema({"read": pa.int64(), "chain": pa.int64(), "offset": pa.int64(), "strand": pa.int8()})


@dataclass(frozen=True)
class Overlaps:
    """Verified overlaps of reads, by their rows; columns as in :mod:`hpc_jobs.align_pairs.overlaps`."""

    first: np.ndarray
    second: np.ndarray
    strand: np.ndarray
    first_begin: np.ndarray
    first_end: np.ndarray
    second_begin: np.ndarray
    second_end: np.ndarray
    length: np.ndarray
    identity: np.ndarray


@dataclass(frozen=True)
class ChainLimits:
    """Which overlaps and reads may link.

    :param minimum_length: columns of the alignment.
    :param minimum_identity: share of columns that match.
    :param tolerance: bases that an alignment may miss an end by, and that two placements may differ by.
    :param jump: a chain on which reads begin more than so many times as densely as on those around it is a repeat.
    """

    minimum_length: int = 50
    minimum_identity: float = 0.95
    tolerance: int = 15
    jump: float = 1.4


@dataclass(frozen=True)
class _Placed:
    """Overlaps that reach an end on both sides, in the frame of the first read, int64.

    ``begin`` and ``end``: by how many bases the second read begins and ends to the right of the first.
    """

    first: np.ndarray
    second: np.ndarray
    turns: np.ndarray
    begin: np.ndarray
    end: np.ndarray

    def where(self, chosen: np.ndarray) -> _Placed:
        return _Placed(
            self.first[chosen], self.second[chosen], self.turns[chosen], self.begin[chosen], self.end[chosen]
        )


def chains(lengths: np.ndarray, overlaps: Overlaps, limits: ChainLimits) -> pa.Table:
    """Place reads on chains of two reads or more; a table of :data:`SCHEMA`, by chain, offset and read.

    ``offset`` is from the begin of the chain to the leftmost base of the read, in bases; ``strand`` is +1 or -1,
    and which strand of a chain is +1 is that of the end with the lowest row. Reads that are alone, or that their
    containers would place differently, or that a repeat's chain holds, are not in the table. A circle is cut at its
    lowest row. The result does not depend on the order of the overlaps.

    :param lengths: of all reads, in bases; int64, by row.
    """
    lengths = lengths.astype(np.int64)
    placed, chimeric = _reaching_ends(lengths, overlaps, limits)
    nested = (placed.begin >= 0) & (placed.end <= 0) | (placed.begin <= 0) & (placed.end >= 0)
    containments = _inner_and_outer(lengths, placed.where(nested))
    dovetails = placed.where(~nested)

    link = ~chimeric
    link[containments.second] = False
    chosen = link[dovetails.first] & link[dovetails.second]
    chain, offset, strand = _walk(len(lengths), *_unbranched(lengths, dovetails.where(chosen), limits))
    chain[~link] = -1

    _place_contained(containments, chain, offset, strand, limits)
    chain[_in_repeats(chain, offset, dovetails, limits)] = -1
    return _table(chain, offset, strand)


def _reaching_ends(
    lengths: np.ndarray, overlaps: Overlaps, limits: ChainLimits
) -> tuple[_Placed, np.ndarray]:
    """Overlaps of two reads, within the limits, that end at an end of either read, in order, and the chimeras.

    The second result is bool, of all reads: two or more alignments end inside it and inside the other read, and
    no other overlap spans the first such place, as one would at the border of a repeat.
    """
    first, second = overlaps.first.astype(np.int64), overlaps.second.astype(np.int64)
    turns = overlaps.strand < 0
    second_begin, second_after = overlaps.second_begin, lengths[second] - overlaps.second_end
    left, right = overlaps.first_begin.astype(np.int64), lengths[first] - overlaps.first_end
    other_left = np.where(turns, second_after, second_begin)
    other_right = np.where(turns, second_begin, second_after)
    good = (
        (first != second)
        & (overlaps.length >= limits.minimum_length)
        & (overlaps.identity >= limits.minimum_identity)
    )
    reaching = (np.minimum(left, other_left) <= limits.tolerance) & (
        np.minimum(right, other_right) <= limits.tolerance
    )
    read = np.concatenate([first, second])
    low = np.concatenate([overlaps.first_begin, overlaps.second_begin]).astype(np.int64)
    high = np.concatenate([overlaps.first_end, overlaps.second_end]).astype(np.int64)
    breaks_left = np.minimum(left, other_left) > limits.tolerance
    at_low = np.concatenate([breaks_left, breaks_left ^ turns])
    inside, reaches = np.tile(good & ~reaching, 2), np.tile(good & reaching, 2)
    place = np.full(len(lengths), np.iinfo(np.int64).max)
    np.minimum.at(place, read[inside], np.where(at_low, low, high)[inside])
    at = place[read]
    spans = reaches & (low < at - limits.tolerance) & (high - limits.tolerance > at)
    chimeric = np.bincount(read[inside], minlength=len(lengths)) >= 2
    chimeric[read[spans]] = False
    rows = np.stack([first, second, turns, left - other_left, other_right - right])[:, good & reaching]
    first, second, turned, begin, end = rows[:, np.lexsort(rows[::-1])]
    return _Placed(first, second, turned > 0, begin, end), chimeric


def _inner_and_outer(lengths: np.ndarray, nested: _Placed) -> _Placed:
    """Turn every containment so that the first read is the container: the longer, of equal ones the lower row."""
    swap = lengths[nested.second] > lengths[nested.first]
    # Seen from the second read: on the other strand, left and right change places.
    begin = np.where(nested.turns, nested.end, -nested.begin)
    end = np.where(nested.turns, nested.begin, -nested.end)
    return _Placed(
        np.where(swap, nested.second, nested.first),
        np.where(swap, nested.first, nested.second),
        nested.turns,
        np.where(swap, begin, nested.begin),
        np.where(swap, end, nested.end),
    )


def _unbranched(
    lengths: np.ndarray, dovetails: _Placed, limits: ChainLimits
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that are the only way on and the only way back: from state, to state, bases between their begins.

    State 2 r is read r walked along its own strand, 2 r + 1 against it.
    """
    right = dovetails.begin > 0
    # Every overlap is a step of the first read and, the other way, one of the second.
    source = 2 * dovetails.first + ~right
    target = 2 * dovetails.second + (dovetails.turns ^ ~right)
    bases = np.where(right, dovetails.begin, -dovetails.end)
    bases_back = np.where(right, dovetails.end, -dovetails.begin)
    overlap = np.tile(np.arange(len(source)), 2)
    source, target = np.concatenate([source, target ^ 1]), np.concatenate([target, source ^ 1])
    bases = np.concatenate([bases, bases_back])
    states = 2 * len(lengths)
    key = source * states + target
    order = np.lexsort((bases, key))
    source, target, bases, overlap, key = (a[order] for a in (source, target, bases, overlap, key))

    counts = np.bincount(source, minlength=states)
    begins = np.cumsum(counts) - counts
    needless = np.zeros(len(dovetails.first), bool)
    # A part of the steps at a time: their continuations are many more.
    for start in range(0, len(source), STEPS_AT_ONCE):
        steps = np.arange(start, min(start + STEPS_AT_ONCE, len(source)))
        further = counts[target[steps]]
        one = np.repeat(steps, further)
        nth = np.arange(len(one)) - np.repeat(np.cumsum(further) - further, further)
        two = begins[target[one]] + nth
        total = bases[one] + bases[two]
        within = total <= lengths[source[one] // 2] + limits.tolerance
        one, two, total = one[within], two[within], total[within]
        wanted = source[one] * states + target[two]
        found = np.minimum(np.searchsorted(key, wanted), len(key) - 1)
        explained = found[(key[found] == wanted) & (np.abs(bases[found] - total) <= limits.tolerance)]
        needless[overlap[explained]] = True

    kept = ~needless[overlap]
    source, target, bases = source[kept], target[kept], bases[kept]
    ways_on = np.bincount(source, minlength=states)
    only = (ways_on[source] == 1) & (ways_on[target ^ 1] == 1)
    return source[only], target[only], bases[only]


def _walk(
    reads: int, source: np.ndarray, target: np.ndarray, bases: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chain, offset and strand of every read along steps of which each state has at most one on and one back."""
    following, step = np.full(2 * reads, -1), np.zeros(2 * reads, np.int64)
    following[source], step[source] = target, bases
    begins = np.ones(2 * reads, bool)
    begins[target] = False
    # Ends of paths first; what is then left are circles.
    starts = np.concatenate([np.flatnonzero(begins), np.flatnonzero(~begins)]).tolist()
    on, bases_on = following.tolist(), step.tolist()
    chain, offset, strand = [-1] * reads, [0] * reads, [1] * reads
    for number, start in enumerate(starts):
        state, at = start, 0
        while state >= 0 and chain[state // 2] < 0:
            chain[state // 2], offset[state // 2], strand[state // 2] = number, at, 1 - 2 * (state % 2)
            at += bases_on[state]
            state = on[state]
    return np.array(chain, np.int64), np.array(offset, np.int64), np.array(strand, np.int64)


def _place_contained(
    containments: _Placed, chain: np.ndarray, offset: np.ndarray, strand: np.ndarray, limits: ChainLimits
) -> None:
    """Place reads on the containers that are placed, then those they contain; in place.

    A read is left out where two of its containers are on different chains, strands or offsets.
    """
    open_ = np.zeros(len(chain), bool)
    open_[containments.second] = True
    while True:
        now = containments.where((chain[containments.first] >= 0) & open_[containments.second])
        if not len(now.first):
            return
        outer, inner = now.first, now.second
        # On a turned container, the read's end is what comes first.
        at = offset[outer] + np.where(strand[outer] > 0, now.begin, -now.end)
        way = strand[outer] * np.where(now.turns, -1, 1)
        reads, chosen, inverse = np.unique(inner, return_index=True, return_inverse=True)
        differs = (
            (chain[outer] != chain[outer][chosen][inverse])
            | (way != way[chosen][inverse])
            | (np.abs(at - at[chosen][inverse]) > limits.tolerance)
        )
        agreed = np.bincount(inverse, differs, minlength=len(reads)) == 0
        open_[reads] = False
        placed, by = reads[agreed], chosen[agreed]
        chain[placed], offset[placed], strand[placed] = chain[outer][by], at[by], way[by]


def _in_repeats(chain: np.ndarray, offset: np.ndarray, dovetails: _Placed, limits: ChainLimits) -> np.ndarray:
    """Whether a read is on a chain that several places of the genomes share: bool, of all reads.

    Reads begin there as often as in all these places together. A chain is compared with those that overlaps join it
    to, by the median of reads begun per base, or with all chains where these have less than :data:`GROUP_BASES`
    together. So a genome of which there is more than of others is no repeat where its chains are joined to so much,
    but at 2x, where few chains are, much of it is lost: with six genomes of which one is at 8x and most at 2x, two
    thirds of its reads of 150 bases. Of few reads chance alone makes many: two standard deviations are allowed.
    """
    rows = np.flatnonzero(chain >= 0)
    _, of, reads = np.unique(chain[rows], return_inverse=True, return_counts=True)
    number = np.full(len(chain), -1)
    number[rows] = of
    lowest, highest = np.full(len(reads), np.iinfo(np.int64).max), np.full(len(reads), np.iinfo(np.int64).min)
    np.minimum.at(lowest, of, offset[rows])
    np.maximum.at(highest, of, offset[rows])
    bases, begun = np.maximum(highest - lowest, 1), reads - 1

    one, other = number[dovetails.first], number[dovetails.second]
    between = (one >= 0) & (other >= 0) & (one != other)
    edges = np.stack([one[between], other[between]], axis=1)
    group = np.array(Graph(len(reads), edges).connected_components().membership, np.int64)
    usual = _median_density(begun, bases, group)
    small = np.bincount(group, bases)[group] < GROUP_BASES
    usual[small] = _median_density(begun, bases, np.zeros_like(group))[small]
    expected = usual * bases
    repeats = (begun > limits.jump * expected) & (begun - expected > 2 * np.sqrt(expected))
    return (number >= 0) & repeats[number] if len(repeats) else number >= 0


def _median_density(begun: np.ndarray, bases: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Of every chain the median of reads begun per base over its group, each base counting once."""
    density = begun / bases
    order = np.lexsort((density, group))
    below = np.cumsum(bases[order])
    ends = np.cumsum(np.bincount(group))
    before = np.concatenate([[0], below])[np.concatenate([[0], ends[:-1]])]
    half = np.searchsorted(below, (before + below[ends - 1]) / 2) if len(ends) else ends
    return np.asarray(density[order[half]][group])


def _table(chain: np.ndarray, offset: np.ndarray, strand: np.ndarray) -> pa.Table:
    """The reads of chains of two or more, chains numbered from 0 and their leftmost base at 0."""
    read = np.flatnonzero(chain >= 0)
    _, inverse, sizes = np.unique(chain[read], return_inverse=True, return_counts=True)
    read = read[sizes[inverse] > 1]
    _, number = np.unique(chain[read], return_inverse=True)
    leftmost = np.full(len(read), np.iinfo(np.int64).max)
    np.minimum.at(leftmost, number, offset[read])
    at = offset[read] - leftmost[number]
    order = np.lexsort((read, at, number))
    read, number, at = read[order], number[order], at[order]
    return pa.table([read, number, at, strand[read]], names=SCHEMA.names).cast(SCHEMA)
