"""Part 4: our job with ``kmer-mlp`` on one, two and four nodes of a local cluster, as far as the cores go.

A node has one CPU. Two CPUs in one node are measured as well: what two nodes take longer than that is the price of
distribution, since blocks travel from one object store to another.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.phase1.inputs import Input
from tests.benchmarks.phase1.service import s3_service
from tests.benchmarks.phase1.whole_job import job, kmer_mlp

CLUSTERS = ((1, 1), (1, 2), (2, 1), (4, 1))
"""Nodes, and CPUs of each."""


def measure(source: Input) -> dict[str, Any]:
    """One row for each cluster; those that need more cores than there are say so."""
    cores = os.cpu_count() or 1
    rows: list[dict[str, Any]] = []
    with s3_service(source) as service, tempfile.TemporaryDirectory() as folder:
        encoder_uri = kmer_mlp(Path(folder), source)
        for nodes, cpus in CLUSTERS:
            row: dict[str, Any] = {"nodes": nodes, "cpus": nodes * cpus}
            if nodes * cpus > cores:
                rows.append({**row, "not_measured": f"needs {nodes * cpus} cores, here are {cores}"})
                continue
            service.ask(encoder_uri)
            found = job("ours", service, encoder_uri, "--nodes", str(nodes), "--cpus", str(cpus))
            small, seconds = found["batch_seconds"]
            rows.append(
                {
                    **row,
                    "small_batch_seconds": small,
                    "seconds": seconds,
                    "reads_per_second": round(source.reads / seconds),
                    "peak_memory_bytes": found["peak_memory_bytes"],
                }
            )
    return {"cores": cores, "rows": rows}
