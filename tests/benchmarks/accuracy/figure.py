"""The table's middle as a figure: P@10 and ARI of every way in every cell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from tests.benchmarks.accuracy.cell import CHAINED, CHAINED_TWICE, MINIMAP2, ORACLE, WAYS
from tests.benchmarks.accuracy.tables import of

COLOURS = {"p_at_10": "#0f6b74", "ari": "#d1793a"}
LABELS = {"p_at_10": "P@10", "ari": "ARI of clusters"}
STYLE: Any = {"svg.hashsalt": "accuracy", "svg.fonttype": "none", "font.size": 8.5, "axes.axisbelow": True}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Write an SVG: a panel for each cell, a line for each way, a dot for each mean over the seeds."""
    cells = [*dict.fromkeys(row["cell"] for row in rows)]
    ways = [way for way in WAYS if way != MINIMAP2][::-1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 + 2 * len(cells), 2.6), layout="constrained")
        panels = figure.subplots(1, len(cells), sharey=True, squeeze=False)[0]
        for axes, cell in zip(panels, cells, strict=True):
            for measure, colour in COLOURS.items():
                for line, way in enumerate(ways):
                    if found := of(rows, cell, way, measure):
                        axes.errorbar(
                            found.mean,
                            line,
                            xerr=found.half_range,
                            fmt="o",
                            markersize=5 if way in (CHAINED, CHAINED_TWICE) else 3.5,
                            markerfacecolor="white" if way == ORACLE else colour,
                            color=colour,
                            label=LABELS[measure] if way == CHAINED else None,
                        )
            axes.set_title(cell, fontsize=9)
            axes.set_yticks(range(len(ways)), ways)
            axes.grid(axis="x", color="#d9dde1", linewidth=0.5)
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.tick_params(axis="y", length=0)
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
        )
        figure.savefig(path, format="svg", metadata={"Date": None})
