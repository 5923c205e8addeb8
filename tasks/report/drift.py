"""The section of the page that sets the batch beside earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.drift.profile import COSINE_EDGES
from tasks.report import figures


@dataclass(frozen=True)
class DriftRow:
    """One line of the table, as text: the number, the range of earlier batches, and where a warning begins."""

    name: str
    value: str
    earlier: str
    warning: str


def drift_section(drift: Mapping[str, Any]) -> dict[str, Any]:
    """What the template needs of ``drift.json``, as :mod:`tasks.drift.measure` writes it."""
    comparison, distance = drift["comparison"], drift["comparison"]["distance"]
    earlier = np.array(drift["earlier_nearest"] or [0.0] * len(drift["profile"]["nearest"]))
    return {
        "warning": comparison["warning"],
        "verdict": comparison["verdict"],
        "image": figures.drift(np.array(drift["profile"]["nearest"]), earlier, COSINE_EDGES),
        "earlier": [one["batch_id"] for one in drift["earlier"]],
        "threshold": comparison["threshold"],
        "by_chance": distance and distance["by_chance"],
        "rows": [_distance_row(comparison), *map(_measure_row, comparison["measures"])] if distance else [],
    }


def _distance_row(comparison: Mapping[str, Any]) -> DriftRow:
    distance = comparison["distance"]
    return DriftRow(
        name=f"Reads with a nearest neighbour of cosine below {distance['cosine']:.2f}, where the difference "
        "is largest",
        value=f"{distance['share']:.1%}",
        earlier=f"{distance['share_before']:.1%}",
        warning=f"differs by {comparison['threshold'] + distance['by_chance']:.1%}",
    )


def _measure_row(measure: Mapping[str, Any]) -> DriftRow:
    def text(value: float) -> str:
        return f"{value:.1%}" if measure["per"] == 1 else f"{value:.2f}"

    low, high = measure["limits"] or (None, None)
    begins = []
    if low is not None and low > 0:
        begins.append(f"below {text(low)}")
    if high is not None and high < 1:
        begins.append(f"above {text(high)}")
    name = measure["name"]
    return DriftRow(
        name=f"Reads {name}" if measure["per"] == 1 else f"{name.capitalize()}, per {measure['per']:,} reads",
        value=text(measure["value"]),
        earlier=f"{text(measure['lowest'])} to {text(measure['highest'])}",
        warning=" or ".join(begins),
    )
