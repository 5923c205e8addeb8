"""One run of the kernel: read the store rank by rank, compare, write the neighbours and what it took."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from mpi4py import MPI

from hpc_jobs import neighbours, store
from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.mpi_dna_seq import build
from hpc_jobs.mpi_dna_seq.metrics import Progress, RankMetrics, summary
from hpc_jobs.mpi_dna_seq.ring import HalfRing
from hpc_jobs.mpi_dna_seq.tiles import Best, Block, Comparison

NAMED_READS = 5
Result = TypeVar("Result")


class Refused(Exception):
    """The input is at fault; rank 0 has said why, and every rank stops with this."""


def main(arguments: list[str]) -> int:
    """Parse, run and give the exit status; a rank that fails unexpectedly takes all others down with it."""
    comm = MPI.COMM_WORLD
    options = _parser().parse_args(arguments)
    try:
        run(comm, options.store, options.out, k=options.k, tile=options.tile)
    except Refused:
        return 1
    except BaseException:
        print(f"rank {comm.rank} on {MPI.Get_processor_name()} failed:", file=sys.stderr)
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(1)
    return 0


def run(comm: MPI.Comm, directory: Path, out: Path, *, k: int, tile: int) -> None:
    """Write the ``k`` nearest neighbours of every row of the store ``directory`` to ``out``; collective.

    Zero vectors have cosine 0 with everything, so among equals the lowest rows are their neighbours. Where
    there are fewer than ``k`` other rows, every read gets all of them. A finished result for this store and
    this ``k`` stays as it is.

    :raises Refused: on every rank: the store is missing or damaged, a vector holds NaN or infinity, …
    """
    began = time.perf_counter()
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    _together(comm, lambda: build.build() if node.rank == 0 else None)
    finished = _together(comm, lambda: _prepare(directory, out, k) if comm.rank == 0 else False)
    if comm.bcast(finished):
        _say(comm, f"unchanged: {out} already holds the {k} nearest neighbours of this store")
        return
    manifest = _together(comm, lambda: _verified_manifest(comm, directory))
    ring = HalfRing(comm, manifest.rows)
    first_row, stop = ring.own_rows
    vectors = _together(comm, lambda: _unit_vectors(directory, manifest, first_row, stop))
    loaded = time.perf_counter()
    nodes = len(set(comm.allgather(MPI.Get_processor_name())))
    _say(
        comm,
        f"comparing {manifest.rows:,} vectors of {manifest.dim}, k = {k}: half ring of {comm.size} ranks on "
        f"{nodes} nodes, {os.environ.get('OPENBLAS_NUM_THREADS', 'unset')} BLAS threads each",
    )

    home = Block(first_row, vectors, Best.empty(len(vectors), max(min(k, manifest.rows - 1), 0)))
    progress = Progress(comm, manifest.rows)

    def between(pairs: int) -> None:
        ring.advance()
        progress.report(pairs)

    comparison = Comparison(manifest.dim, tile=tile, between=between)
    if home.best.k:
        ring.compare(home, comparison)
    comm.Barrier()
    compared = time.perf_counter()

    part = neighbours.write_part(
        out, comm.rank, first_row=first_row, ids=home.best.ids, scores=home.best.scores
    )
    metrics = RankMetrics(
        rank=comm.rank,
        host=MPI.Get_processor_name(),
        rows=len(vectors),
        pairs=comparison.pairs,
        pairs_scored=comparison.pairs_scored,
        load_seconds=loaded - began,
        product_seconds=comparison.product_seconds,
        merge_seconds=comparison.merge_seconds,
        communication_seconds=ring.communication_seconds,
        compare_seconds=compared - loaded,
        write_seconds=time.perf_counter() - compared,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )
    parts, ranks = comm.gather(part), comm.gather(metrics)
    if parts is None or ranks is None:
        return
    took = summary(ranks, rows=manifest.rows, dim=manifest.dim, k=k, seconds=time.perf_counter() - began)
    write_whole(out / "metrics.json", json.dumps(took, indent=2).encode() + b"\n")
    result = neighbours.NeighbourManifest(
        manifest.rows, k, sha256_of(directory / "manifest.json"), tuple(parts)
    )
    neighbours.write_manifest(out, result)
    _say(
        comm,
        f"done: {result.edges:,} neighbours; compared in {took['compare_seconds']:.2f} s, "
        f"{took['pairs_per_second']:.3g} pairs/s, {took['effective_gflops']:.0f} effective GFLOP/s",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hpc_jobs.mpi_dna_seq", description="Exact k nearest neighbours of all against all."
    )
    parser.add_argument("--store", type=Path, required=True, help="directory of an embedding store")
    parser.add_argument("--out", type=Path, required=True, help="directory for the neighbours")
    parser.add_argument("--k", type=_positive, default=10, help="neighbours per read (default 10)")
    parser.add_argument("--tile", type=_positive, default=512, help="rows of a tile (default 512)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _say(comm: MPI.Comm, text: str) -> None:
    if comm.rank == 0:
        print(text, flush=True)


def _together(comm: MPI.Comm, step: Callable[[], Result]) -> Result:
    """Run a step on every rank; where the input fails it on any, one rank says so and all stop."""
    problem = ""
    try:
        result = step()
    except (store.StoreError, neighbours.NeighboursError, build.BuildError) as error:
        problem = str(error)
    problems = [problem for problem in comm.allgather(problem) if problem]
    if not problems:
        return result
    if comm.rank == 0:
        others = f"\n({len(problems) - 1} more ranks refuse their part)" if len(problems) > 1 else ""
        print(f"refused: {problems[0]}{others}", file=sys.stderr, flush=True)
    raise Refused


def _prepare(directory: Path, out: Path, k: int) -> bool:
    """True where ``out`` holds the finished, undamaged result; else it is made and cleared."""
    store.read_manifest(directory)
    found = neighbours.find(out)
    if found and (found.store_sha256, found.k) == (sha256_of(directory / "manifest.json"), k):
        neighbours.verify(out)
        return True
    out.mkdir(parents=True, exist_ok=True)
    neighbours.clear(out)
    return False


def _verified_manifest(comm: MPI.Comm, directory: Path) -> store.StoreManifest:
    """The manifest, after each rank has checked its share of the shards."""
    manifest = store.read_manifest(directory)
    for shard in manifest.shards[comm.rank :: comm.size]:
        if problem := store.shard_problem(directory, manifest, shard):
            raise store.StoreError(f"the embedding store {directory} is damaged: {problem}; fetch it again")
    return manifest


def _unit_vectors(directory: Path, manifest: store.StoreManifest, start: int, stop: int) -> np.ndarray:
    """Rows ``start`` to ``stop``, of length 1 or 0; a row's values do not depend on the other rows read."""
    vectors = store.read_vectors(directory, start, stop)
    lengths = np.empty(len(vectors))
    build.load().lengths(vectors.ctypes.data, *vectors.shape, lengths.ctypes.data)
    _refuse(~np.isfinite(lengths), "hold NaN or infinity", directory, start)
    if manifest.normalised:
        wrong = (lengths > 0) & (np.abs(lengths - 1) > store.NORM_TOLERANCE)
        _refuse(wrong, "are not of length 1 although the manifest says so", directory, start)
    else:
        lengths[lengths == 0] = 1
        np.divide(vectors, lengths[:, None], out=vectors, casting="same_kind")
    return vectors


def _refuse(wrong: np.ndarray, what: str, directory: Path, start: int) -> None:
    """Raise a StoreError with the read ids of the wrong rows, if there are any."""
    rows = start + np.flatnonzero(wrong)
    if not len(rows):
        return
    named = [
        f"{store.read_ids(directory, row, row + 1)[0]} (row {row})" for row in rows[:NAMED_READS].tolist()
    ]
    more = f" and {len(rows) - NAMED_READS} more" if len(rows) > NAMED_READS else ""
    raise store.StoreError(
        f"{len(rows)} vectors {what}: {', '.join(named)}{more}; embed these reads again or leave them out"
    )
