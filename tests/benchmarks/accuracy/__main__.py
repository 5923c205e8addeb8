"""``python -m tests.benchmarks.accuracy``: measure every cell and seed, print a table, write JSON and a figure.

Cells run side by side, as many as there are cores, on one thread each. ``--length 500 --layout paired --seeds 1``
measures one alone, in some two minutes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from tests.benchmarks.accuracy import figure, genomes, minimap, tables
from tests.benchmarks.accuracy.cell import Cell, measure
from tests.benchmarks.bench_daily_run import ROOT, machine
from tests.benchmarks.kernel.ours import cores

TARGET = ROOT / ".local" / "bench" / "accuracy.json"
PACKAGES = ("numpy", "torch", "igraph", "parasail", "scikit-learn")


def measured(cells: Sequence[Cell]) -> Iterator[list[dict[str, Any]]]:
    """The rows of each cell, as soon as it is done."""
    # Processes read it as they load numpy and torch.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores(), len(cells)), context) as pool:
        for done in as_completed([pool.submit(measure, cell) for cell in cells]):
            yield done.result()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accuracy", description=__doc__)
    parser.add_argument("--length", type=int, nargs="+", choices=(150, 500), default=(150, 500))
    parser.add_argument("--layout", nargs="+", choices=("single", "paired"), default=("single", "paired"))
    parser.add_argument("--seeds", type=int, nargs="+", default=(1, 2, 3))
    parser.add_argument("--json", type=Path, default=TARGET)
    options = parser.parse_args()
    genomes.fetch([*genomes.TRAINED, *genomes.UNSEEN])
    minimap.fetch()
    began, about = time.monotonic(), machine()
    about_run = {
        "measured_on": datetime.now(UTC).date().isoformat(),
        "machine": about,
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "genomes": genomes.provenance(),
    }
    paired = [layout == "paired" for layout in options.layout]
    cells = [Cell(length, two, seed) for seed, length, two in product(options.seeds, options.length, paired)]
    rows: list[dict[str, Any]] = []
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for of_cell in measured(cells):
        rows = sorted([*rows, *of_cell], key=lambda row: (row["cell"], row["seed"]))
        seconds = round(time.monotonic() - began, 1)
        options.json.write_text(json.dumps(about_run | {"seconds": seconds, "rows": rows}, indent=1) + "\n")
    figure.draw(rows, options.json.with_suffix(".svg"))
    print(f"{about['cpu']}, {about['cores']} cores; {time.monotonic() - began:.0f} s in all\n")
    print(tables.text_of(rows))
    print(f"\nwritten to {options.json} and {options.json.with_suffix('.svg')}")


if __name__ == "__main__":
    main()
