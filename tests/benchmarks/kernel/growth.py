"""Part 2: how time and memory grow with the number of rows; clustered vectors of 128, on all cores.

The exponent is the slope of a least-squares line through the logarithms, from :data:`FIT_FROM_ROWS` on: below,
starting takes a good share of the time. All pairs are N^2, so 2 is what an exact method without an index can do
at best. Memory is a line through all sizes: its slope over the bytes of a vector is what each row costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.kernel.ours import cores, run_ours
from tests.benchmarks.kernel.vectors import make_store

DIM = 128
ROWS: dict[str, tuple[int, ...]] = {"int8-exact": (10_000, 25_000, 50_000, 100_000, 200_000, 400_000)}
ROWS["fp32"] = ROWS["int8-exact"][:-1]
FIT_FROM_ROWS = 50_000


def measure(folder: Path, *, largest: int) -> dict[str, Any]:
    """A row for each size up to ``largest`` and precision, and the fits of each precision."""
    rows: list[dict[str, Any]] = []
    fits: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for precision, sizes in ROWS.items():
            found = []
            for size in [size for size in sizes if size <= largest]:
                directory = make_store(folder, "clustered", rows=size, dim=DIM)
                run = run_ours(directory, Path(scratch), ranks=cores(), precision=precision)
                found.append({"precision": precision, "rows": size, "dim": DIM, **run})
            fits[precision] = fit(found)
            rows += found
    return {"ranks": cores(), "rows": rows, "fits": fits}


def fit(found: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Exponents of the comparison and of the whole, and bytes of each row; None where there are too few sizes."""
    large = [row for row in found if row["rows"] >= FIT_FROM_ROWS]
    sizes = [row["rows"] for row in found]
    per_row = slope(sizes, [row["peak_memory_bytes"] for row in found])
    return {
        "compare_exponent": exponent([(row["rows"], row["compare_seconds"]) for row in large]),
        "whole_exponent": exponent([(row["rows"], row["seconds"]) for row in large]),
        "bytes_per_row": per_row,
        "memory_over_input": None if per_row is None else per_row / (4 * DIM),
    }


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """b of the best a * x^b through points (x, y), by least squares of the logarithms."""
    return slope(np.log([x for x, _ in points]), np.log([y for _, y in points]))


def slope(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float | None:
    """Of the line of least squares; None through fewer than two points."""
    return float(np.polyfit(x, y, 1)[0]) if len(x) > 1 else None
