"""The section of the page that sets the batch beside earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.drift.profile import COSINE_EDGES, Profile
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
    profile, comparison = Profile.from_json(drift["profile"]), drift["comparison"]
    distance = comparison["distance"]
    nothing = [0.0] * (len(COSINE_EDGES) - 1)
    alone = profile.nearest().tolist() if profile.by_rank else nothing
    here, before = (distance["nearest"], distance["nearest_before"]) if distance else (alone, nothing)
    return {
        "warning": comparison["warning"],
        "verdict": comparison["verdict"],
        "image": figures.drift(np.array(here), np.array(before), COSINE_EDGES),
        "earlier": comparison["earlier"],
        "threshold": comparison["threshold"],
        "by_chance": distance and distance["by_chance"],
        "rows": [_distance_row(comparison), *map(_measure_row, comparison["measures"])] if distance else [],
    }


def _distance_row(comparison: Mapping[str, Any]) -> DriftRow:
    distance = comparison["distance"]
    return DriftRow(
        name=f"Reads with a nearest neighbour of cosine below {distance['cosine']:.2f}, where the difference "
        "is largest",
        value=_percent(distance["share"]),
        earlier=_percent(distance["share_before"]),
        warning=f"at a difference of {_percent(comparison['threshold'] + distance['by_chance'])}",
    )


def _measure_row(measure: Mapping[str, Any]) -> DriftRow:
    def text(value: float) -> str:
        return _percent(value) if measure["per"] == 1 else f"{value:.2f}"

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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
