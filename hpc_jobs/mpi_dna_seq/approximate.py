"""A run of the approximate mode: as the exact one, but each rank by itself, and with its recall in the result.

It keeps no checkpoints: a run that is ended begins again.
"""

from __future__ import annotations

import json
import math
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mpi4py import MPI

from hpc_jobs import neighbours, store
from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.mpi_dna_seq.cells import Cells, CellSearch
from hpc_jobs.mpi_dna_seq.metrics import Progress, RankMetrics, memory_bytes, summary
from hpc_jobs.mpi_dna_seq.schedule import Span
from hpc_jobs.mpi_dna_seq.tiles import Best, Comparison
from hpc_jobs.mpi_dna_seq.vectors import StoredVectors

NPROBE = 8


class CellsError(Exception):
    """So many cells, or so many of them for a row, there cannot be."""


def cells_for(rows: int, *, cells: int | None, nprobe: int | None) -> Cells:
    """What was asked for, or the square root of the rows as cells and 8 of them for a row; raises CellsError."""
    count = max(math.isqrt(rows), 1) if cells is None else cells
    looked_at = min(NPROBE, count) if nprobe is None else nprobe
    if count > max(rows, 1):
        raise CellsError(f"{count:,} cells cannot be made of {rows:,} vectors; ask for fewer (--cells)")
    if looked_at > count:
        raise CellsError(
            f"a row cannot look in {looked_at:,} of {count:,} cells; lower --nprobe, or raise --cells"
        )
    return Cells(count, looked_at)


def search(
    comm: MPI.Comm,
    *,
    store_directory: Path,
    manifest: store.StoreManifest,
    out: Path,
    k: int,
    metric: str,
    precision: str,
    cells: Cells,
    comparison: Callable[[Callable[[int], None]], Comparison],
    together: Callable[[Callable[[], None]], None],
    began: float,
) -> None:
    """Write the approximate neighbours of all rows to ``out``; collective.

    :param comparison: makes one, with what it calls between tiles.
    :param together: runs a step on all ranks, and ends all where one refuses its input.
    :param began: ``time.perf_counter()`` at the start of the run.
    """
    span = Span(0, manifest.rows).part(comm.rank, comm.size)
    vectors = np.empty((span.rows, manifest.dim), np.float32)
    stored = StoredVectors(store_directory, manifest, unit=metric == "cosine")
    together(lambda: stored.read(span, vectors))
    loaded = time.perf_counter()
    if comm.rank == 0:
        print(
            f"comparing {manifest.rows:,} vectors of {manifest.dim} by {metric} in {precision}, k = {k}: each in "
            f"{cells.nprobe} of {cells.cells:,} cells, so approximately; {comm.size} ranks",
            flush=True,
        )
    progress = Progress(comm, out, pairs=cells.expected_pairs(manifest.rows))
    progress.write("running")
    compare = comparison(progress.report)
    of_search = CellSearch(
        comm,
        vectors,
        first_row=span.first,
        rows=manifest.rows,
        cells=cells,
        comparison=compare,
        unit=metric == "cosine",
    )
    best = Best.empty(span.rows, max(min(k, manifest.rows - 1), 0))
    quality = of_search.find(best) if best.k else None
    in_use = memory_bytes()
    comm.Barrier()
    compared = time.perf_counter()
    part = neighbours.write_part(out, comm.rank, first_row=span.first, ids=best.ids, scores=best.scores)
    metrics = RankMetrics(
        rank=comm.rank,
        host=MPI.Get_processor_name(),
        rows=span.rows,
        pairs=compare.pairs,
        pairs_scored=compare.pairs_scored,
        pairs_in_fp32=compare.pairs_in_fp32,
        load_seconds=loaded - began,
        compare_seconds=compared - loaded,
        product_seconds=compare.product_seconds,
        merge_seconds=compare.merge_seconds,
        communication_seconds=of_search.communication_seconds,
        waiting_seconds=0.0,  # in the communication
        checkpoint_seconds=0.0,
        write_seconds=time.perf_counter() - compared,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        memory_bytes=in_use,
    )
    parts, ranks = comm.gather(part), comm.gather(metrics)
    if parts is None or ranks is None:
        return
    told = {**asdict(cells), **(asdict(quality) if quality else {"recall": 1.0})}
    took = {
        "k": k,
        "metric": metric,
        "precision": precision,
        "approximate": told,
        **summary(ranks, dim=manifest.dim, rows=manifest.rows, seconds=time.perf_counter() - began),
    }
    write_whole(out / "metrics.json", json.dumps(took, indent=2).encode() + b"\n")
    sha256 = sha256_of(store_directory / store.MANIFEST)
    result = neighbours.NeighbourManifest(manifest.rows, k, sha256, tuple(parts), metric, told)
    neighbours.write_manifest(out, result)
    progress.write("done")
    print(
        f"done: {result.edges:,} neighbours, recall {told['recall']:.4f}; compared in "
        f"{took['compare_seconds']:.2f} s, {took['pairs']:,} pairs",
        flush=True,
    )
