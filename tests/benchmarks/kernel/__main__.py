"""``python -m tests.benchmarks.kernel``: measure, print a table, write JSON.

Part 1 compares with rivals, part 2 lets the rows grow, part 3 scales: see the modules ``comparison``, ``growth``
and ``scaling``. ``--rows 5000 --dims 128`` tries everything in small.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_daily_run import ROOT, machine
from tests.benchmarks.kernel.ours import cores
from tests.benchmarks.kernel.tables import text_of
from tests.benchmarks.kernel.vectors import DATA_SETS
from tests.benchmarks.processes import RIVALS

FOLDER = ROOT / ".local" / "bench"
ROWS = 50_000
DIMS = (128, 256, 768)
PACKAGES = ("numpy", "mpi4py", "faiss-cpu", "torch", "scikit-learn", "hnswlib", "pynndescent", "numba")


def measure(part: int, result: dict[str, Any], options: argparse.Namespace) -> None:
    """Put the results of one part into ``result``."""
    from tests.benchmarks.kernel import comparison, growth, scaling

    folder = FOLDER / "kernel-inputs"
    if part == 1:
        result["comparison"] = comparison.compare(
            folder,
            rows=options.rows,
            dims=options.dims,
            data_sets=options.data,
            cores=range(1, min(2, cores()) + 1),
        )
    elif part == 2:
        result["growth"] = growth.measure(folder, largest=8 * options.rows)
    else:
        result["scaling"] = scaling.measure(folder, rows=options.rows)


def versions() -> dict[str, str]:
    """Of what takes part."""
    found = {"python": platform.python_version()}
    found |= {package: importlib.metadata.version(package) for package in PACKAGES}
    said = subprocess.run(["mpirun", "--version"], capture_output=True, text=True, check=True).stdout
    return found | {"mpi": said.splitlines()[0]}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kernel", description=__doc__)
    parser.add_argument("--only", type=int, choices=(1, 2, 3), help="one part")
    parser.add_argument("--rows", type=int, default=ROWS, help="part 2 goes up to eight times as many")
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS, help="of part 1")
    parser.add_argument("--data", nargs="+", choices=DATA_SETS, default=list(DATA_SETS), help="of part 1")
    parser.add_argument("--json", type=Path, default=FOLDER / "kernel.json")
    options = parser.parse_args()
    if not RIVALS.is_dir():
        parser.error(f"{RIVALS} is missing: `make bench-kernel` installs the rivals there")
    sys.path.append(str(RIVALS))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that namespaces and processes go with it
    result: dict[str, Any] = {
        "measured_on": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
    }
    for part in (1, 2, 3) if options.only is None else (options.only,):
        measure(part, result, options)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{result['machine']['cpu']}, {result['machine']['cores']} cores; {options.rows:,} rows\n")
    print(text_of(result))
    print(f"\nwritten to {options.json}")


if __name__ == "__main__":
    main()
