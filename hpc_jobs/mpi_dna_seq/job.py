"""One run of the kernel: check the store, search, write the neighbours and what it took."""

from __future__ import annotations

import json
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from mpi4py import MPI

from hpc_jobs import neighbours, store
from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.collective import Refused
from hpc_jobs.mpi_dna_seq import build
from hpc_jobs.mpi_dna_seq.agreement import say, together
from hpc_jobs.mpi_dna_seq.approximate import in_cells
from hpc_jobs.mpi_dna_seq.checkpoint import Checkpoint, CheckpointError
from hpc_jobs.mpi_dna_seq.exact import all_against_all
from hpc_jobs.mpi_dna_seq.found import Found
from hpc_jobs.mpi_dna_seq.metrics import RankMetrics, summary
from hpc_jobs.mpi_dna_seq.request import SAVED, Request
from hpc_jobs.mpi_dna_seq.restart import StopSignal


def main(arguments: list[str]) -> int:
    """Parse, run and give the exit status; a rank that fails unexpectedly takes all others down with it."""
    comm = MPI.COMM_WORLD
    request = Request.parse(arguments)
    try:
        return 0 if run(comm, request) else SAVED
    except Refused:
        return 1
    except BaseException:
        print(f"rank {comm.rank} on {MPI.Get_processor_name()} failed:", file=sys.stderr)
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(1)
    return 1


def run(comm: MPI.Intracomm, request: Request) -> bool:
    """Write the nearest neighbours of every row of the store to ``request.out``; by all ranks at once.

    For the cosine, vectors are brought to length 1 first; zero vectors have cosine 0 with everything, so among
    equals the lowest rows are their neighbours. Where there are fewer than ``k`` other rows, every read gets all of
    them. A finished result for this store and these parameters stays as it is.

    :return: False where it was told to stop and has saved what it had.
    :raises Refused: on every rank: the store is missing or damaged, a vector holds NaN or infinity, …
    """
    began = time.perf_counter()
    stop = StopSignal() if request.checkpoint else None
    machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
    together(comm, lambda: build.build() if machine.rank == 0 else None)
    if comm.bcast(together(comm, lambda: comm.rank == 0 and _is_finished(request))):
        say(comm, f"unchanged: {request.out} already holds the {request.k} nearest neighbours of this store")
        return True
    manifest = together(comm, lambda: _verified_manifest(comm, request.store))
    found: Found | None
    if cells := request.cells_for(manifest.rows):
        found = in_cells(comm, request, manifest, cells, began=began)
    else:
        found = all_against_all(comm, request, manifest, stop, began=began)
    if found is None:
        return False
    compared = time.perf_counter()
    part = _write_part(request.out, found)
    metrics = RankMetrics(**found.took, write_seconds=time.perf_counter() - compared)
    parts, ranks = comm.gather(part), comm.gather(metrics)
    if parts is not None and ranks is not None:
        of_run = {"k": request.k, "metric": request.metric, "precision": request.precision}
        seconds = time.perf_counter() - began
        took = of_run | found.about | summary(ranks, dim=manifest.dim, rows=manifest.rows, seconds=seconds)
        write_whole(request.out / "metrics.json", json.dumps(took, indent=2).encode() + b"\n")
        files = sorted((part for part in parts if part), key=lambda part: part.name)
        store_sha256 = sha256_of(request.store / store.MANIFEST)
        approximately = found.about.get("approximate")
        result = neighbours.NeighbourManifest(
            manifest.rows, request.k, store_sha256, tuple(files), request.metric, approximately
        )
        neighbours.write_manifest(request.out, result)
        say(
            comm,
            f"done: {result.edges:,} neighbours"
            + (f", recall {approximately['recall']:.4f}" if approximately else "")
            + f"; compared in {took['compare_seconds']:.2f} s, "
            f"{took['pairs_per_second']:.3g} pairs/s, {took['effective_gflops']:.0f} effective GFLOP/s",
        )
    found.finish()
    return True


def _is_finished(request: Request) -> bool:
    """True where ``out`` holds the finished, undamaged result; else it is made and cleared."""
    cells = request.cells_for(store.read_manifest(request.store).rows)
    found = neighbours.find(request.out)
    wanted = (sha256_of(request.store / store.MANIFEST), request.k, request.metric)
    if (
        found
        and (found.store_sha256, found.k, found.metric) == wanted
        and (asdict(cells).items() <= (found.approximate or {}).items() if cells else not found.approximate)
    ):
        neighbours.verify(request.out)
        _remove_leftover(request)
        return True
    request.out.mkdir(parents=True, exist_ok=True)
    neighbours.clear(request.out)
    return False


def _remove_leftover(request: Request) -> None:
    """The checkpoint of a run that was killed after it had written its result."""
    if request.checkpoint:
        of = {
            "store_sha256": sha256_of(request.store / store.MANIFEST),
            "k": request.k,
            "metric": request.metric,
        }
        checkpoint = Checkpoint(request.checkpoint, of)
        try:
            if checkpoint.find():
                checkpoint.remove()
        except CheckpointError:
            pass  # of another computation


def _verified_manifest(comm: MPI.Intracomm, directory: Path) -> store.StoreManifest:
    """The manifest, after each rank has checked its share of the shards."""
    manifest = store.read_manifest(directory)
    for shard in manifest.shards[comm.rank :: comm.size]:
        if problem := store.shard_problem(directory, manifest, shard):
            raise store.StoreError(f"the embedding store {directory} is damaged: {problem}; fetch it again")
    return manifest


def _write_part(out: Path, found: Found) -> neighbours.Part | None:
    """This rank's part of the result."""
    if found.part is None:
        return None
    ids, scores = found.best.ids, found.best.scores
    return neighbours.write_part(out, found.part, first_row=found.first_row, ids=ids, scores=scores)
