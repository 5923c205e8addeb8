"""The quality section of the page: where every record went, and the reads before and after the filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.report import figures

OVERFLOW = 1001
"""The bin of all lengths from here on."""
OVERFLOW_LABEL = "Bases (more than 1,000 counted as 1,001)"


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
        "quality_figures": _figures(quality["total"]["before"], quality["total"]["after"]),
    }


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
        histogram("lengths", "Length", "Bases" if len(before["lengths"]) <= OVERFLOW else OVERFLOW_LABEL),
        # One base of a short read is more than half a percent, so bars of one percent would be a comb.
        histogram("gc_percents", "GC content", "G and C among the known bases (%)", width=2),
    ]


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
