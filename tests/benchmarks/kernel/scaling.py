"""Part 3: strong and weak scaling as far as the cores go, and what the model of :mod:`scaling_model` says of links.

On cores: the same rows on more ranks; then sqrt(P) times the rows on P ranks, which is the same work for each.

On links: a member of the ring in each of some network namespaces, whose links are slowed. What the network gives
is measured between the same namespaces by messages alone, the speed of a rank by a run on one. From these two the
model predicts each run. With more members than cores the members share them, and the model is told so.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.kernel.namespaces import NoNamespaces, nodes
from tests.benchmarks.kernel.ours import MPI, PRECISIONS, cores, run_ours
from tests.benchmarks.kernel.scaling_model import Cluster, ring_seconds
from tests.benchmarks.kernel.vectors import make_store
from tests.benchmarks.processes import run_measured

K = 10
DIM = 256
REPEATS = 2
LINKS_OF_ROWS = 5
"""Between namespaces a fifth of the rows are compared: seconds, so that slow links show."""
LINKS = {2: (None, 400, 100, 25), 4: (None, 400, 100, 25)}
"""Mbit/s of each link, by members of the ring; None is as fast as this machine."""


def measure(folder: Path, *, rows: int) -> dict[str, Any]:
    """Both, with what the model's predictions start from."""
    on_cores = [row for precision in PRECISIONS for row in scale_on_cores(folder, rows, precision)]
    alone = {row["precision"]: row for row in on_cores if row["ranks"] == 1}
    try:
        links: dict[str, Any] = {"rows": between_namespaces(folder, rows // LINKS_OF_ROWS)}
    except NoNamespaces as error:
        links = {"not_measured": str(error)}
    calibration = {
        "rows": rows,
        "dim": DIM,
        "k": K,
        "pairs_per_second_of_a_core": {name: row["pairs_per_second"] for name, row in alone.items()},
        "efficiency_of_all_cores": {row["precision"]: row["efficiency"] for row in on_cores},
    }
    return {"cores": on_cores, "links": links, "calibration": calibration}


def scale_on_cores(folder: Path, rows: int, precision: str) -> list[dict[str, Any]]:
    """Strong and weak, on 1, 2, 4, … ranks."""
    ranks = [2**power for power in range(cores().bit_length()) if 2**power <= cores()]
    found: list[dict[str, Any]] = []
    for kind in ("strong", "weak"):
        for number in ranks if kind == "strong" else ranks[1:]:
            size = rows if kind == "strong" else round(rows * number**0.5)
            run = _fastest(
                make_store(folder, "clustered", rows=size, dim=DIM), ranks=number, precision=precision
            )
            alone = found[0]["pairs_per_second"] if found else pairs_per_second(size, run)
            found.append(
                {
                    "kind": kind,
                    "precision": precision,
                    "rows": size,
                    "dim": DIM,
                    "ranks": number,
                    **run,
                    "pairs_per_second": pairs_per_second(size, run),
                    "efficiency": pairs_per_second(size, run) / number / alone,
                }
            )
    return found


def between_namespaces(folder: Path, rows: int) -> list[dict[str, Any]]:
    """One row for each number of members and speed of the links; raises NoNamespaces."""
    directory = make_store(folder, "clustered", rows=rows, dim=DIM)
    alone = pairs_per_second(rows, _fastest(directory, ranks=1, precision="fp32"))
    found = []
    for members, speeds in LINKS.items():
        with nodes(members) as made:
            for mbit in speeds:
                made.slow_down(mbit)
                network = _network(made.mpirun(), f"links of {mbit} Mbit between {members}")
                run = _fastest(
                    directory,
                    ranks=members,
                    precision="fp32",
                    launch=made.mpirun(),
                    shown=f"{members} members, links of {mbit} Mbit",
                )
                cluster = Cluster(
                    members=members,
                    ranks=1,
                    pairs_per_second=alone * min(1, cores() / members),
                    alpha_seconds=network["alpha_seconds"],
                    bytes_per_second=network["bytes_per_second"],
                )
                head = {"members": members, "rows": rows, "dim": DIM, "precision": "fp32", "link_mbit": mbit}
                seconds = ring_seconds(rows, dim=DIM, k=K, cluster=cluster).total
                found.append({**head, **network, **run, "model_seconds": seconds})
    return found


def pairs_per_second(rows: int, run: dict[str, Any]) -> float:
    """Unordered pairs."""
    return float(rows * (rows - 1) / 2 / run["compare_seconds"])


def _fastest(directory: Path, **how: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        runs = [run_ours(directory, Path(scratch), k=K, **how) for _ in range(REPEATS)]
    best = min(runs, key=lambda run: run["compare_seconds"])
    return {**best, "all_compare_seconds": [run["compare_seconds"] for run in runs]}


def _network(launch: list[str], shown: str) -> dict[str, float]:
    command = [*launch, sys.executable, "-m", "tests.benchmarks.kernel.network"]
    ended = run_measured(command, shown=shown, environment=MPI, timeout_seconds=120)
    found: dict[str, float] = json.loads(ended.out.splitlines()[-1])
    return found
