"""The figures of the page, each one an SVG document in a ``data:`` address.

As an image each figure is a document of its own, so names inside one cannot meet those of another. The same
numbers give the same bytes: identifiers are salted by a constant, and no date is written.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tasks.reads.length_bins import LONGEST_EXACT

BEFORE, AFTER = "#a9b2ba", "#0f6b74"
INK, FAINT, OTHERS = "#2b3137", "#d9dde1", "#c4cacf"
CLUSTER_COLOURS = (
    "#0f6b74",
    "#d1793a",
    "#5b68b0",
    "#b3435f",
    "#6f9a3c",
    "#8a5fa8",
    "#c9a227",
    "#3f92c4",
    "#8d6748",
)
"""Of clusters 0 to 8, told apart by people with the common colour vision deficiencies; others are grey."""

BARS_PER_DOUBLING = 8
"""Of read lengths; divides the bins per doubling that lengths are counted in."""
BASE_COLOURS = {"A": "#6f9a3c", "C": "#5b68b0", "G": "#d1793a", "T": "#b3435f", "N": "#8b939a"}

# Text stays text, set in the reader's own sans-serif font like the rest of the page.
_FONTS = "'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "strandloop",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


def quality_by_position(before: np.ndarray, after: np.ndarray) -> str:
    """Mean base quality (Phred) at each position of the reads, before and after the quality filter.

    :param before: float (positions,), NaN where no read is that long; ``after`` is the same.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("Position in the read (bases)", "Mean base quality (Phred)")
        for values, colour, label in ((before, BEFORE, "before"), (after, AFTER, "after")):
            known = np.flatnonzero(np.isfinite(values))
            axes.plot(known + 1, values[known], color=colour, label=label, marker=_marker(len(known)))
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower left", ncols=2)
        return _svg(figure)


def before_and_after(before: np.ndarray, after: np.ndarray, *, label: str, width: int = 1) -> str:
    """Histograms of one measure of the reads, before and after the quality filter.

    :param before: int (bins,), reads with the value 0, 1, 2, …; ``after`` is the same.
    :param label: the measure and its unit.
    :param width: fewest values that share a bar.
    """
    shown = np.flatnonzero(before + after)
    low, high = (int(shown[0]), int(shown[-1]) + 1) if len(shown) else (0, 1)
    low, high = min(low, max(high - 10, 0)), max(high, low + 10)
    step = max(width, -(-(high - low) // 80))
    return _stairs(np.arange(len(before)), before, after, np.arange(low, high + step, step), label=label)


def lengths(before: np.ndarray, after: np.ndarray, shortest_of_bin: np.ndarray) -> str:
    """Reads by length, before and after; on a logarithmic axis where one has more than 1,000 bases.

    :param before: int (bins,), reads; ``after`` is the same.
    :param shortest_of_bin: int (that many bins or more,), bases.
    """
    shown = shortest_of_bin[np.flatnonzero(before + after)]
    if not len(shown) or shown[-1] <= LONGEST_EXACT:
        return before_and_after(before, after, label="Bases")
    first, last = (BARS_PER_DOUBLING * np.log2(max(end, 1) / LONGEST_EXACT) for end in (shown[0], shown[-1]))
    bars = np.arange(np.floor(first), np.floor(last) + 2)
    # Bars end where bins end: else one would have more bins than the next. Half a base below, no length is lost.
    edges = LONGEST_EXACT * 2 ** (bars / BARS_PER_DOUBLING) - 0.5
    return _stairs(shortest_of_bin[: len(before)], before, after, edges, label="Bases", scale="log")


def _stairs(
    values: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    edges: np.ndarray,
    *,
    label: str,
    scale: str = "linear",
) -> str:
    """``before`` filled and ``after`` as a line: reads by value, between ``edges``."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(label, "Reads")
        axes.set_xscale(scale)
        for counts, colour, name, filled in (
            (before, BEFORE, "before", True),
            (after, AFTER, "after", False),
        ):
            heights = np.histogram(values, edges, weights=counts)[0]
            axes.stairs(heights, edges, fill=filled, color=colour, label=name, linewidth=0 if filled else 1.3)
        if scale == "linear":
            _pad(axes, edges)
        else:
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper left", ncols=2, bbox_to_anchor=(0, 1.14), borderpad=0)
        return _svg(figure)


def bases_by_position(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> str:
    """Share of each base at each position of the reads, before (thin) and after (thick) the quality filter.

    :param before: A, C, G, T, N -> float (positions), percent; ``after`` is the same.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("Position in the read (bases)", "Share of reads (%)")
        for shares, width in ((before, 0.5), (after, 1.2)):
            for base, values in shares.items():
                label = base if shares is after else None
                place = np.arange(1, len(values) + 1)
                axes.plot(
                    place,
                    values,
                    color=BASE_COLOURS[base],
                    label=label,
                    linewidth=width,
                    marker=_marker(len(values)),
                )
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper left", ncols=5, bbox_to_anchor=(0, 1.14), borderpad=0)
        return _svg(figure)


def duplication(levels: Sequence[str], before: np.ndarray, after: np.ndarray) -> str:
    """Reads by how many reads have their sequence, before and after the quality filter.

    :param levels: what the numbers of copies are called.
    :param before: float (levels), percent of reads; ``after`` is the same.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes("Reads with the same sequence", "Share of reads (%)")
        place = np.arange(len(levels))
        axes.bar(place - 0.2, before, width=0.4, color=BEFORE, label="before")
        axes.bar(place + 0.2, after, width=0.4, color=AFTER, label="after")
        axes.set_xticks(place, levels)
        axes.set_ylim(0, 100)
        axes.legend(loc="upper right", ncols=2)
        return _svg(figure)


def similarity(nearest: np.ndarray, every: np.ndarray, edges: np.ndarray) -> str:
    """Cosine of the nearest neighbours and of all neighbours, as fractions per bin.

    :param nearest: int (400,); ``every`` is the same. Shown by ones, twos or fours, so that they can be seen.
    :param edges: float (401,).
    """
    layers = {"all neighbours": every, "nearest neighbour": nearest}
    return _shares(layers, edges, "Cosine of two neighbours", "Share of neighbours (%)")


def drift(batch: np.ndarray, earlier: np.ndarray, edges: np.ndarray) -> str:
    """Cosine of the nearest neighbour in this batch and in earlier ones, as fractions per bin.

    :param batch: float (200,), shares; ``earlier`` is the same, all zero where there are none.
    :param edges: float (201,).
    """
    layers = {"earlier batches": earlier} if earlier.any() else {}
    return _shares(
        {**layers, "this batch": batch}, edges, "Cosine of the nearest neighbour", "Share of reads (%)"
    )


def _shares(layers: Mapping[str, np.ndarray], edges: np.ndarray, x_label: str, y_label: str) -> str:
    """Histograms by name, each in percent of its sum: the last is a line, one before it is filled."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(x_label, y_label, size=(7.4, 2.5))
        bins = len(edges) - 1
        shown = np.flatnonzero(sum(layers.values()))
        low, high = (int(shown[0]), int(shown[-1]) + 1) if len(shown) else (bins - 1, bins)
        step = next(step for step in (1, 2, 4) if high - low <= 100 * step)
        low, high = low // step * step, -(-high // step) * step
        grouped = edges[low : high + 1 : step]
        for number, (label, counts) in enumerate(layers.items(), start=1):
            share = counts[low:high].reshape(-1, step).sum(axis=1) * 100 / (counts.sum() or 1)
            if number == len(layers):
                axes.stairs(share, grouped, color=AFTER, label=label, linewidth=1.3)
            else:
                axes.stairs(share, grouped, fill=True, color=BEFORE, label=label, linewidth=0)
        _pad(axes, grouped)
        axes.legend(loc="upper left")
        return _svg(figure)


def read_map(coordinates: np.ndarray, clusters: np.ndarray) -> str:
    """The reads in two dimensions, coloured by cluster, the large clusters numbered.

    :param coordinates: float (n, 2).
    :param clusters: int (n,), cluster numbers.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.4, 4.9))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        size = float(np.clip(9000 / len(coordinates), 5, 40))
        # Points are drawn as one picture: as SVG elements they would be most of the page's bytes.
        layers = [(clusters >= len(CLUSTER_COLOURS), OTHERS)]
        layers += [(clusters == number, colour) for number, colour in enumerate(CLUSTER_COLOURS)]
        for chosen, colour in layers:
            x, y = coordinates[chosen].T
            axes.scatter(x, y, s=size, color=colour, alpha=0.75, linewidths=0, rasterized=True)
        for number in range(len(CLUSTER_COLOURS)):
            own = coordinates[clusters == number]
            if len(own):
                # The middle read of a cluster is inside it, where the mean may fall between two halves.
                middle = own[np.argmin(np.abs(own - np.median(own, axis=0)).sum(axis=1))]
                axes.annotate(
                    str(number),
                    middle,
                    ha="center",
                    va="center",
                    fontsize=10,
                    fontweight="bold",
                    bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "alpha": 0.85, "linewidth": 0},
                )
        axes.margins(0.03)
        return _svg(figure, dpi=200)


def _axes(x_label: str, y_label: str, *, size: tuple[float, float] = (4.1, 2.35)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axes.spines["left"].set_visible(False)
    return figure, axes


def _pad(axes: Axes, edges: Sequence[float] | np.ndarray) -> None:
    room = 0.02 * (edges[-1] - edges[0])
    axes.set_xlim(edges[0] - room, edges[-1] + room)


def _marker(points: int) -> str:
    """A line of one point is invisible, so it gets a dot."""
    return "o" if points == 1 else ""


def _svg(figure: Figure, dpi: int = 100) -> str:
    target = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(target, format="svg", dpi=dpi, metadata=nothing, transparent=True)
    text = target.getvalue()
    text = text[text.index("<svg") :].replace("'DejaVu Sans'", _FONTS)
    text = re.sub(r"<!--.*?-->\s*|\n\s*", "\n", text, flags=re.DOTALL)
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()
