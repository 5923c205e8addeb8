"""``python -m tests.benchmarks.phase1``: measure, print a table, write JSON.

Part 1 parses, part 2 runs whole jobs, part 3 networks, part 4 clusters of several nodes and the model of the cost:
see the modules of those names. About ten minutes on two cores; ``--reads 4000`` tries everything in small.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_daily_run import ROOT, machine
from tests.benchmarks.phase1.inputs import make_inputs
from tests.benchmarks.phase1.tables import text_of
from tests.benchmarks.processes import RIVALS

FOLDER = ROOT / ".local" / "bench"
READS = 300_000
PACKAGES = (
    *("ray", "pyarrow", "numpy", "numba", "torch", "transformers", "dnaio", "isal"),
    *("cutadapt", "biopython", "pyspark", "sentence-transformers"),
)


def measure(part: int, result: dict[str, Any], reads: int) -> None:
    """Put the results of one part into ``result``."""
    from tests.benchmarks.phase1 import cost_model, models, parsing, scaling, whole_job

    inputs = make_inputs(FOLDER / "phase1-inputs", reads)
    result["inputs"] = [source.to_json() for source in inputs.values()]
    if part == 1:
        result["parsing"] = parsing.compare(inputs)
    elif part == 2:
        result["whole_job"] = whole_job.compare(inputs)
    elif part == 3:
        result["models"] = models.compare(inputs, min(1.0, reads / READS))
    else:
        from tasks.cost.prices import current_prices

        result["scaling"] = scaling.measure(inputs["short"])
        measured = [row for row in result["scaling"]["rows"] if "not_measured" not in row]
        rate = max(row["reads_per_second"] / row["cpus"] for row in measured)
        result["cost"] = cost_model.model(rate, current_prices())


def versions() -> dict[str, str]:
    """Of what takes part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        found[package] = importlib.metadata.version(package)
    if shutil.which("java"):
        said = subprocess.run(["java", "-version"], stderr=subprocess.PIPE, text=True, check=True).stderr
        found["java"] = said.splitlines()[0]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.phase1", description=__doc__)
    parser.add_argument("--only", type=int, choices=(1, 2, 3, 4), help="one part")
    parser.add_argument("--reads", type=int, default=READS, help="short reads; a fifteenth as many long ones")
    parser.add_argument("--json", type=Path, default=FOLDER / "phase1.json")
    options = parser.parse_args()
    if not RIVALS.is_dir():
        parser.error(f"{RIVALS} is missing: `make bench-phase1` installs the rivals there")
    sys.path.append(str(RIVALS))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the S3 server goes down with it
    result: dict[str, Any] = {
        "measured_on": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    for part in (1, 2, 3, 4) if options.only is None else (options.only,):
        measure(part, result, options.reads)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['machine']['cpu']}, {result['machine']['cores']} cores; {options.reads:,} short reads\n")
    print(text_of(result))
    print(f"\nwritten to {options.json}")


if __name__ == "__main__":
    main()
