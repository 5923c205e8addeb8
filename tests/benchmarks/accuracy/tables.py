"""What was measured, as text: means over the seeds, and how far the seeds lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from tests.benchmarks.accuracy.cell import CHAINED, CONTROL, FIRST, WAYS

MEASURES = {
    "p_at_1": "P@1",
    "p_at_10": "P@10",
    "ari": "ARI",
    "ari_k_means": "ARI k-means",
    "overlap_recall": "overlaps@10",
    "edge_purity": "purity",
    "elsewhere_p_at_10": "elsewhere P@10",
    "unseen_p_at_10": "unseen P@10",
}
GOALS = {("500 bp paired", "p_at_10"): 0.875, ("500 bp paired", "ari"): 0.82}
GOALS |= {("150 bp single", "p_at_10"): 0.62, ("150 bp single", "ari"): 0.50}
GOALS |= {(cell, "ari_k_means"): asked for (cell, measure), asked in GOALS.items() if measure == "ari"}


@dataclass(frozen=True)
class Spread:
    """Values of several seeds."""

    values: list[float]

    @property
    def mean(self) -> float:
        """Their mean."""
        return mean(self.values)

    @property
    def half_range(self) -> float:
        """Half of what lies between the least and the greatest."""
        return (max(self.values) - min(self.values)) / 2

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half_range:.3f}"


@dataclass(frozen=True)
class Goal:
    """What was asked for, and what was found."""

    what: str
    asked: float
    found: Spread
    met: bool


def of(rows: Sequence[dict[str, Any]], cell: str, way: str, measure: str) -> Spread | None:
    """A measure of one way in one cell; None where it was not measured."""
    values = [row[measure] for row in rows if (row["cell"], row["way"]) == (cell, way) and measure in row]
    return Spread(values) if values else None


def text_of(rows: Sequence[dict[str, Any]]) -> str:
    """A table for every cell, and the goals."""
    lines = []
    for cell in dict.fromkeys(row["cell"] for row in rows):
        seeds = len({row["seed"] for row in rows if row["cell"] == cell})
        lines += [f"{cell}, {seeds} seeds: mean ± half the range", ""]
        lines.append(f"| {'way':32} | " + " | ".join(f"{name:13}" for name in MEASURES.values()) + " | s |")
        lines.append("|---" * (len(MEASURES) + 2) + "|")
        for way in WAYS:
            found = [of(rows, cell, way, measure) for measure in MEASURES]
            seconds = of(rows, cell, way, "seconds")
            if seconds:
                shown = " | ".join(f"{value or ''!s:13}" for value in found)
                lines.append(f"| {way:32} | {shown} | {seconds.mean:.0f} |")
        lines.append("")
    for goal in goals(rows):
        met = "met" if goal.met else "MISSED"
        lines.append(f"{goal.what:62} asked {goal.asked:.3f}, found {goal.found}  {met}")
    return "\n".join(lines)


def goals(rows: Sequence[dict[str, Any]]) -> list[Goal]:
    """Every goal for which there are figures; a difference is within noise up to the larger half range."""
    found = []
    for (cell, measure), asked in GOALS.items():
        if value := of(rows, cell, CHAINED, measure):
            found.append(Goal(f"{cell}, {MEASURES[measure]}", asked, value, value.mean >= asked))
    for cell in dict.fromkeys(row["cell"] for row in rows):
        for measure, than, name in (
            ("p_at_10", CONTROL, "control"),
            ("ari", CONTROL, "control"),
            ("unseen_p_at_10", FIRST, "first encoder"),
        ):
            value, base = of(rows, cell, CHAINED, measure), of(rows, cell, than, measure)
            if value and base:
                noise = max(value.half_range, base.half_range)
                what = f"{cell}, {MEASURES[measure]} not below the {name}"
                found.append(Goal(what, base.mean, value, value.mean >= base.mean - noise))
    return found
