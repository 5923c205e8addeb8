"""The quality section of the page: where every record went, and the reads before and after the filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.reads.length_bins import SHORTEST_OF_BIN
from tasks.report import figures

COPY_LEVELS = {"1": 1, "2": 2, "3": 3, "4": 4, "5–9": 5, "10–99": 10, "100+": 100}
"""Label and fewest copies of the levels of duplication."""


@dataclass(frozen=True)
class AccountingRow:
    """One row of the table: a sample, or all of them."""

    name: str
    is_total: bool
    records: int
    kept: int
    rejected: Mapping[str, int]
    quarantined: int
    bases_before: int
    bases_after: int

    @property
    def kept_share(self) -> float:
        """Fraction of the records that was kept."""
        return self.kept / self.records if self.records else 0.0


@dataclass(frozen=True)
class ProfileSummary:
    """One column of the small table; what no read can tell is None.

    :param gc: mean over the reads of G + C among their known bases, as a fraction.
    :param repeated: fraction of the reads whose sequence another one had before, estimated.
    """

    reads: int
    bases: int
    mean_length: float | None
    gc: float | None
    repeated: float | None


@dataclass(frozen=True)
class QualityFigure:
    """A figure with its heading and what it says to a reader who does not see it."""

    title: str
    alt: str
    image: str


def quality_section(quality: Mapping[str, Any]) -> dict[str, Any]:
    """What the template needs of ``quality.json``.

    :param quality: ``total`` and ``samples``, each accounting as :mod:`tasks.reads.accounting` writes it. Read
        as plain JSON, because a worker that only draws pages has no need of the counting code's compiler.
    """
    total = _row("All samples", quality["total"], is_total=True)
    samples = [_row(name, counted) for name, counted in sorted(quality["samples"].items())]
    return {
        "total": total,
        "samples": samples,
        "accounting": samples if len(samples) == 1 else [*samples, total],
        "reasons": list(quality["total"]["rejected"]),
        "before": _summary(quality["total"]["before"]),
        "after": _summary(quality["total"]["after"]),
        "with_adapter": quality["total"]["with_adapter"],
        "quality_figures": _figures(quality["total"]["before"], quality["total"]["after"]),
    }


def _summary(profile: Mapping[str, Any]) -> ProfileSummary:
    reads = sum(profile["lengths"])
    percents = sum(percent * count for percent, count in enumerate(profile["gc_percents"]))
    copies = profile["copies"].values()
    return ProfileSummary(
        reads=reads,
        bases=profile["bases"],
        mean_length=profile["bases"] / reads if reads else None,
        gc=percents / reads / 100 if reads else None,
        repeated=1 - len(copies) / sum(copies) if copies else None,
    )


def _row(name: str, counted: Mapping[str, Any], *, is_total: bool = False) -> AccountingRow:
    return AccountingRow(
        name=name,
        is_total=is_total,
        records=counted["records"],
        kept=counted["kept"],
        rejected=counted["rejected"],
        quarantined=counted["quarantined"],
        bases_before=counted["before"]["bases"],
        bases_after=counted["after"]["bases"],
    )


def _figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[QualityFigure]:
    def histogram(name: str, title: str, label: str, width: int = 1) -> QualityFigure:
        image = figures.before_and_after(*_aligned(before[name], after[name]), label=label, width=width)
        return QualityFigure(title, f"{title}: histograms before and after the quality filter", image)

    title = "Quality along the read"
    by_position = figures.quality_by_position(_means_by_position(before), _means_by_position(after))
    return [
        QualityFigure(title, f"{title}: mean quality at each position, before and after", by_position),
        histogram("mean_qualities", "Mean quality of a read", "Mean base quality (Phred)"),
        QualityFigure(
            "Length",
            "Length: histograms before and after the quality filter",
            figures.lengths(*_aligned(before["lengths"], after["lengths"]), SHORTEST_OF_BIN),
        ),
        # One base of a short read is more than half a percent, so bars of one percent would be a comb.
        histogram("gc_percents", "GC content", "G and C among the known bases (%)", width=2),
        QualityFigure(
            "Bases along the read",
            "Bases along the read: share of A, C, G, T and N at each position, before and after",
            figures.bases_by_position(*(_base_shares(profile) for profile in (before, after))),
        ),
        QualityFigure(
            "Duplication",
            "Duplication: share of reads by how many reads have the same sequence, before and after",
            figures.duplication(list(COPY_LEVELS), *(_copy_shares(profile) for profile in (before, after))),
        ),
    ]


def _base_shares(profile: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Of each base, float (positions), percent of the reads that have that position."""
    lists = profile["position_bases"]
    counts = np.zeros((len(lists), max(map(len, lists.values()))))
    for row, values in zip(counts, lists.values(), strict=True):
        row[: len(values)] = values
    return dict(zip(lists, 100 * counts / counts.sum(axis=0), strict=True))


def _copy_shares(profile: Mapping[str, Any]) -> np.ndarray:
    """Percent of reads by level of duplication, float (levels), estimated from the sampled sequences."""
    copies = np.array(list(profile["copies"].values()), np.int64)
    level = np.searchsorted(list(COPY_LEVELS.values()), copies, side="right") - 1
    reads = np.bincount(level, weights=copies, minlength=len(COPY_LEVELS))
    return 100 * reads / max(copies.sum(), 1)


def _means_by_position(profile: Mapping[str, Any]) -> np.ndarray:
    counts = np.array(profile["position_count"], np.float64)
    sums = np.zeros_like(counts)
    sums[: len(profile["position_quality_sum"])] = profile["position_quality_sum"]
    return sums / counts  # up to the last position that a read has, so no count is 0


def _aligned(before: list[int], after: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Both as int64 of the same length; the lists come without their trailing zeros."""
    bins = max(len(before), len(after))
    both = np.zeros((2, bins), np.int64)
    both[0, : len(before)] = before
    both[1, : len(after)] = after
    return both[0], both[1]
