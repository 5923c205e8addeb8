"""The approximate search of a run: each rank has rows of its own, and the recall goes with the result."""

from __future__ import annotations

import resource
import time
from dataclasses import asdict

import numpy as np
from mpi4py import MPI

from hpc_jobs.mpi_dna_seq.agreement import say, together
from hpc_jobs.mpi_dna_seq.cells import Cells, CellSearch, Quality
from hpc_jobs.mpi_dna_seq.found import Found
from hpc_jobs.mpi_dna_seq.metrics import Progress, memory_bytes
from hpc_jobs.mpi_dna_seq.request import Request
from hpc_jobs.mpi_dna_seq.schedule import Span
from hpc_jobs.mpi_dna_seq.tiles import Best
from hpc_jobs.mpi_dna_seq.vectors import StoredVectors
from hpc_jobs.store_manifest import StoreManifest


def in_cells(
    comm: MPI.Intracomm, request: Request, manifest: StoreManifest, cells: Cells, *, began: float
) -> Found:
    """The approximate neighbours of this rank's rows; it keeps no checkpoints, so what is ended begins again.

    :param cells: see :meth:`Request.cells_for`.
    :param began: ``time.perf_counter()`` at the start of the run.
    """
    span = Span(0, manifest.rows).part(comm.rank, comm.size)
    vectors = np.empty((span.rows, manifest.dim), np.float32)
    stored = StoredVectors(request.store, manifest, unit=request.metric == "cosine")
    together(comm, lambda: stored.read(span, vectors))
    loaded = time.perf_counter()
    say(
        comm,
        f"comparing {manifest.rows:,} vectors of {manifest.dim} by {request.metric} in {request.precision}, "
        f"k = {request.k}: each in {cells.nprobe:,} of {cells.cells:,} cells, so approximately; {comm.size} ranks",
    )
    progress = Progress(comm, request.out, pairs=cells.expected_pairs(manifest.rows))
    progress.write("running")
    compare = request.comparison(manifest.dim, progress.report)
    search = CellSearch(
        comm,
        vectors,
        first_row=span.first,
        rows=manifest.rows,
        cells=cells,
        comparison=compare,
        unit=request.metric == "cosine",
    )
    best = Best.empty(span.rows, max(min(request.k, manifest.rows - 1), 0))
    quality = search.find(best) if best.k else Quality(recall=1.0, recall_rows=0, completed_rows=0)
    in_use = memory_bytes()
    comm.Barrier()
    took = {
        "rank": comm.rank,
        "host": MPI.Get_processor_name(),
        "rows": span.rows,
        "pairs": compare.pairs,
        "pairs_scored": compare.pairs_scored,
        "pairs_in_fp32": compare.pairs_in_fp32,
        "load_seconds": loaded - began,
        "compare_seconds": time.perf_counter() - loaded,
        "product_seconds": compare.product_seconds,
        "merge_seconds": compare.merge_seconds,
        "communication_seconds": search.communication_seconds,
        "waiting_seconds": 0.0,  # in the communication
        "checkpoint_seconds": 0.0,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "memory_bytes": in_use,
    }
    about = {"approximate": {**asdict(cells), **asdict(quality)}}
    return Found(span.first, best, comm.rank, took, about, lambda: progress.write("done"))
