"""A batch beside earlier ones: how many of its reads are elsewhere, and whether people should look.

Twice the reads of the same genomes have nearer neighbours, so two batches are compared at an equal number of reads:
the larger one is thinned to the smaller one's, by arithmetic (:meth:`tasks.drift.profile.Profile.nearest`).

Two histograms of the nearest neighbour's cosine are compared by their Kolmogorov-Smirnov distance, the largest
difference of the two cumulative shares (Massey 1951, doi:10.1080/01621459.1951.10500769). It was preferred to the
population stability index and the Jensen-Shannon divergence because it is itself a share of reads, which a person
can picture and which a share can be compared with; because it hardly depends on the bins; and because there is a
bound for what chance alone makes of it.

What a threshold of 0.1 sees was measured once, by hand, with ``kmer-mlp``, 6,000 reads of 150 bases with 0.5 %
errors of five real genomes (400 kb of each, 0.5x), beside four such batches. Distances, of which about 0.03 may be
chance:

========================================================  =================
the same, also a quarter to three times as many reads     0.01-0.03
abundances changed by a factor of 1.6; of 2.7 (typical)   0.07; 0.04-0.13
1 %, 2 %, 5 % errors                                      0.04, 0.07, 0.22
reads of 140, 125, 100, 250 bases                         0.04, 0.07, 0.13, 0.21
5 %, 10 %, 20 % of the reads random sequence              0.04, 0.09, 0.14
20 % of the reads twice                                   0.40
5 to 25 %, 50 %, 100 % of other species (mycobacteria)    0.02-0.06, 0.09, 0.28
========================================================  =================

So it tells of a changed library, and of a changed community only where most of it changed: the reads of a new
species have each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.drift.profile import COSINE_EDGES, Profile

ALONE, LARGEST, CLUSTERS = "named back by no neighbour", "in the largest cluster", "clusters of two or more"
CHANCE = 0.01
"""How often chance alone may exceed what :func:`by_chance` allows."""
MOST_UNSEEN = 0.05
"""Batches of so different sizes that more is unseen of the larger, thinned, are not compared."""


@dataclass(frozen=True)
class Measure:
    """One number of the batch, and the range of the same of the earlier ones.

    :param per: reads that the number is counted for: 1 where it is a share, 1,000 where it is a count.
    :param limits: a warning begins outside of them; None where the number is only shown.
    """

    name: str
    per: int
    value: float
    lowest: float
    highest: float
    limits: tuple[float, float] | None

    @property
    def is_drift(self) -> bool:
        """Whether the value is outside its limits."""
        return self.limits is not None and not self.limits[0] <= self.value <= self.limits[1]


@dataclass(frozen=True)
class Distance:
    """How far the histograms of two times are apart at equal numbers of reads, in shares of reads, 0 to 1.

    :param value: the largest difference of the cumulative shares; it is at ``cosine``: ``share`` of the batch's
        reads have a nearest neighbour below it, and ``share_before`` of the reads of the earlier batches.
    :param by_chance: two samples of the same reads may be so far apart.
    :param nearest: the batch's histogram, shares, (200,); ``nearest_before`` is that of the earlier ones.
    """

    value: float
    by_chance: float
    cosine: float
    share: float
    share_before: float
    nearest: tuple[float, ...]
    nearest_before: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """What came of it; without ``distance`` and ``measures`` where there was nothing to compare with.

    :param threshold: share of reads, 0 to 1, from which a difference beyond chance is a warning.
    :param verdict: the sentence for people.
    :param earlier: ids of the batches that it was compared with.
    """

    warning: bool
    verdict: str
    threshold: float
    earlier: tuple[str, ...] = ()
    distance: Distance | None = None
    measures: tuple[Measure, ...] = ()


def compare(batch: Profile, earlier: Sequence[Profile], *, threshold: float) -> Comparison:
    """Compare a batch with earlier ones, each of which counts the same.

    :param earlier: of the batch's own encoder version and number of neighbours; ValueError for any other.
    """
    if any((one.encoder_revision, one.k) != (batch.encoder_revision, batch.k) for one in earlier):
        raise ValueError("profiles of another encoder version or number of neighbours are not comparable")
    alike = [one for one in earlier if batch.reads > 1 and _comparable(batch, one)]
    if not alike:
        return Comparison(False, f"No verdict: batch {batch.batch_id} {_why_not(batch, earlier)}.", threshold)
    distance = _distance(batch, alike)
    measures = tuple(_measures(batch, alike, room=threshold + distance.by_chance))
    far = distance.value > threshold + distance.by_chance
    warning = far or any(measure.is_drift for measure in measures)
    words = _what_is_unlike(distance, far, measures) if warning else _what_is_alike(distance, threshold)
    before = "an earlier batch" if len(alike) == 1 else f"{len(alike)} earlier batches"
    verdict = f"Batch {batch.batch_id} is {'un' if warning else ''}like {before}: {words}."
    return Comparison(warning, verdict, threshold, tuple(one.batch_id for one in alike), distance, measures)


def by_chance(batch: Profile, earlier: Sequence[Profile]) -> float:
    """How far apart two samples of the same reads are by chance in not more than :data:`CHANCE` of cases.

    The bound of Dvoretzky, Kiefer and Wolfowitz with Massart's constant (1990, doi:10.1214/aop/1176990746). Two
    reads that are each other's nearest neighbour have one cosine between them, so half the reads are counted.
    """
    variance = 2 / batch.reads + sum(2 / one.reads for one in earlier) / len(earlier) ** 2
    return math.sqrt(math.log(2 / CHANCE) / 2 * variance)


def _comparable(batch: Profile, other: Profile) -> bool:
    larger = max(batch, other, key=lambda one: one.reads)
    return larger.unseen(min(batch.reads, other.reads)) <= MOST_UNSEEN


def _why_not(batch: Profile, earlier: Sequence[Profile]) -> str:
    if batch.reads < 2:
        return "has a single read"
    if earlier:
        counts = sorted(one.reads for one in earlier)
        before = f"earlier ones {counts[0]:,} to {counts[-1]:,}"
        return f"has {batch.reads:,} reads, and {before}: too different for a comparison"
    return (
        f"is the first with encoder {batch.encoder_uri} and {batch.k} neighbours for each read; similarities of "
        "other versions are not comparable"
    )


def _distance(batch: Profile, earlier: Sequence[Profile]) -> Distance:
    sizes = [min(batch.reads, one.reads) for one in earlier]
    nearest = np.mean([batch.nearest(among=size) for size in sizes], axis=0)
    nearest_before = np.mean(
        [one.nearest(among=size) for one, size in zip(earlier, sizes, strict=True)], axis=0
    )
    here, before = np.cumsum(nearest), np.cumsum(nearest_before)
    widest = int(np.argmax(np.abs(here - before)))
    return Distance(
        value=float(abs(here[widest] - before[widest])),
        by_chance=by_chance(batch, earlier),
        cosine=round(float(COSINE_EDGES[widest + 1]), 2),
        share=float(here[widest]),
        share_before=float(before[widest]),
        nearest=tuple(nearest.tolist()),
        nearest_before=tuple(nearest_before.tolist()),
    )


def _measures(batch: Profile, earlier: Sequence[Profile], *, room: float) -> Iterator[Measure]:
    """:param room: a share may be so far outside the range of the earlier ones."""
    for name, per, count in (
        (ALONE, 1, lambda one: one.alone),
        (LARGEST, 1, lambda one: one.largest),
        (CLUSTERS, 1000, lambda one: one.clusters),
    ):
        before = [per * count(one) / one.reads for one in earlier]
        limits = (min(before) - room, max(before) + room) if per == 1 else None
        yield Measure(name, per, per * count(batch) / batch.reads, min(before), max(before), limits)


def _what_is_unlike(distance: Distance, far: bool, measures: Sequence[Measure]) -> str:
    found = [
        f"{measure.value:.1%} of its reads are {measure.name}, where {_range(measure)} were"
        for measure in measures
        if measure.is_drift
    ]
    if far:
        found.insert(
            0,
            f"at equal numbers of reads, {distance.share:.1%} have a nearest neighbour of cosine below "
            f"{distance.cosine:.2f}, where {distance.share_before:.1%} had",
        )
    return "; ".join(found)


def _what_is_alike(distance: Distance, threshold: float) -> str:
    begins = threshold + distance.by_chance
    return (
        f"at equal numbers of reads, nearest neighbours' similarities differ for {distance.value:.1%} of reads "
        f"(a warning begins at {begins:.1%})"
    )


def _range(measure: Measure) -> str:
    low, high = f"{measure.lowest:.1%}", f"{measure.highest:.1%}"
    return low if low == high else f"{low} to {high}"
