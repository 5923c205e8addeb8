"""One run of the kernel, by its command line, measured as a process."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import run_measured

MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # containers forbid process_vm_readv
}
PRECISIONS = ("fp32", "int8-exact")


def on_cores(cores: int, *command: str) -> list[str]:
    """The command, confined to the first so many cores of this machine."""
    return ["taskset", "--cpu-list", f"0-{cores - 1}", *command]


def kernel_command(store: Path, out: Path, *, k: int, precision: str) -> list[str]:
    """The kernel's own command line."""
    command = [sys.executable, "-m", "hpc_jobs.mpi_dna_seq", "--store", str(store), "--out", str(out)]
    return [*command, "--k", str(k), "--precision", precision]


def run_ours(
    store: Path,
    out: Path,
    *,
    ranks: int,
    precision: str,
    k: int = 10,
    launch: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    shown: str = "",
    timeout_seconds: float = 900,
) -> dict[str, Any]:
    """Compare afresh into ``out``; gives what :func:`figures` makes of ``metrics.json``, and the whole process.

    :param ranks: on as many cores; 1 is run without mpirun.
    :param launch: what stands before the kernel's command instead.
    """
    shutil.rmtree(out, ignore_errors=True)
    if launch is None:
        mpirun = ["mpirun", "--quiet", "--bind-to", "none", "-np", str(ranks)]
        launch = on_cores(ranks, *(mpirun if ranks > 1 else []))
    ended = run_measured(
        [*launch, *kernel_command(store, out, k=k, precision=precision)],
        shown=shown or f"ours {precision}, {ranks} ranks, {store.name}",
        environment={**MPI, **(environment or {})},
        timeout_seconds=timeout_seconds,
    )
    metrics = json.loads((out / "metrics.json").read_text())
    return {
        **figures(metrics),
        "seconds": round(ended.seconds, 3),
        "peak_memory_bytes": ended.peak_without_files_bytes,
    }


def figures(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a ``metrics.json``: seconds are means over the ranks, shares are of the comparison."""
    ranks = metrics["per_rank"]
    compare = metrics["compare_seconds"]

    def mean(name: str) -> float:
        return float(sum(rank[name] for rank in ranks) / len(ranks))

    return {
        "compare_seconds": compare,
        "load_seconds": mean("load_seconds"),
        "product_seconds": mean("product_seconds"),
        "merge_seconds": mean("merge_seconds"),
        "communication_seconds": mean("communication_seconds"),
        "waiting_seconds": mean("waiting_seconds"),
        "write_seconds": mean("write_seconds"),
        "merge_share": mean("merge_seconds") / compare,
        "pairs": metrics["pairs"],
        "pairs_scored": metrics["pairs_scored"],
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))
