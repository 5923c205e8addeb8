"""The exact search of a run: the half ring, with its checkpoints."""

from __future__ import annotations

import os
import resource
import time

from mpi4py import MPI

from hpc_jobs.checked_file import sha256_of
from hpc_jobs.mpi_dna_seq.agreement import say, together
from hpc_jobs.mpi_dna_seq.checkpoint import Checkpoint
from hpc_jobs.mpi_dna_seq.found import Found
from hpc_jobs.mpi_dna_seq.members import Member
from hpc_jobs.mpi_dna_seq.metrics import Progress, memory_bytes
from hpc_jobs.mpi_dna_seq.request import Request
from hpc_jobs.mpi_dna_seq.restart import Restart, StopSignal
from hpc_jobs.mpi_dna_seq.ring import HalfRing
from hpc_jobs.mpi_dna_seq.schedule import Schedule
from hpc_jobs.mpi_dna_seq.tiles import close_zero_rows
from hpc_jobs.mpi_dna_seq.vectors import StoredVectors
from hpc_jobs.store_manifest import MANIFEST, StoreManifest


def all_against_all(
    comm: MPI.Intracomm,
    request: Request,
    manifest: StoreManifest,
    stop: StopSignal | None,
    *,
    began: float,
) -> Found | None:
    """The exact neighbours of this rank's rows, by the half ring; None where it was told to stop and has saved."""
    member = together(
        comm, lambda: Member(comm, ranks_per_member=request.ranks_per_member, layers=request.replication)
    )
    schedule = Schedule.of(manifest.rows, member.ranks)
    k = max(min(request.k, manifest.rows - 1), 0)
    ring = together(comm, lambda: HalfRing(member, schedule, dim=manifest.dim, k=k))
    vectors = StoredVectors(request.store, manifest, unit=request.metric == "cosine")
    together(comm, lambda: vectors.read(ring.strip, ring.home.vectors))
    if k and request.metric != "l2":
        close_zero_rows(ring.home, listed=member.layer == 0)
    loaded = time.perf_counter()
    say(comm, _plan(comm, request, manifest, schedule))

    restart = _restart(comm, request, member, schedule, stop)
    done, done_pairs = comm.bcast(together(comm, restart.find)) if restart else (0, 0)
    if restart and done:
        together(comm, lambda: restart.restore(ring, done))
        units = len(schedule.units(0))
        say(comm, f"goes on after unit {done:,} of {units:,}, from the checkpoint in {request.checkpoint}")
    progress = Progress(comm, request.out, pairs=manifest.rows * (manifest.rows - 1) // 2, done=done_pairs)
    progress.write("running")

    def between(pairs: int) -> None:
        ring.advance()
        progress.report(pairs)

    compare = request.comparison(manifest.dim, between)

    def go_on(units: int) -> bool:
        before = done_pairs if comm.rank == 0 else 0
        return restart is None or restart.go_on(ring, units, before + compare.pairs)

    if k and not ring.compare(compare, vectors.read, done=done, go_on=go_on):
        say(comm, f"told to stop: saved in {request.checkpoint}; started again, it goes on from there")
        progress.write("saved")
        comm.Barrier()
        member.free()
        return None
    in_use = memory_bytes()
    comm.Barrier()
    took = {
        "rank": comm.rank,
        "host": MPI.Get_processor_name(),
        "rows": ring.strip.rows,
        "pairs": compare.pairs,
        "pairs_scored": compare.pairs_scored,
        "pairs_in_fp32": compare.pairs_in_fp32,
        "load_seconds": loaded - began,
        "compare_seconds": time.perf_counter() - loaded,
        "product_seconds": compare.product_seconds,
        "merge_seconds": compare.merge_seconds,
        "communication_seconds": ring.communication_seconds,
        "waiting_seconds": member.waiting_seconds,
        "checkpoint_seconds": restart.seconds if restart else 0.0,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "memory_bytes": in_use,
    }
    about = {
        "members": schedule.members,
        "replication": schedule.layers,
        "pairs_of_earlier_runs": done_pairs,
    }

    def finish() -> None:
        progress.write("done")
        if restart:
            restart.finish()
        member.free()

    # Layer 0 alone has all that was found.
    part = None if member.layer else sum(member.ranks[0][: member.position]) + member.rank
    return Found(ring.strip.first, ring.home.best, part, took, about, finish)


def _plan(comm: MPI.Intracomm, request: Request, manifest: StoreManifest, schedule: Schedule) -> str:
    """What is about to be done, with what, in one line."""
    nodes = len(set(comm.allgather(MPI.Get_processor_name())))
    sizes = sorted({ranks for layer in schedule.ranks for ranks in layer})
    ranks = "-".join(str(size) for size in {sizes[0]: 0, sizes[-1]: 0})
    rings = f"{schedule.layers} half rings" if schedule.layers > 1 else "half ring"
    return (
        f"comparing {manifest.rows:,} vectors of {manifest.dim} by {request.metric} in {request.precision}, "
        f"k = {request.k}: {rings} of {schedule.members} members of {ranks} ranks, {schedule.pieces} passes of "
        f"{schedule.steps + 1} steps; {comm.size} ranks on {nodes} nodes, "
        f"{os.environ.get('OPENBLAS_NUM_THREADS', 'unset')} BLAS threads each "
        f"(SLURM_NTASKS {os.environ.get('SLURM_NTASKS', 'unset')}, "
        f"SLURM_CPUS_PER_TASK {os.environ.get('SLURM_CPUS_PER_TASK', 'unset')})"
    )


def _restart(
    comm: MPI.Intracomm, request: Request, member: Member, schedule: Schedule, stop: StopSignal | None
) -> Restart | None:
    if request.checkpoint is None or stop is None:
        return None
    of = {
        "store_sha256": sha256_of(request.store / MANIFEST),
        "k": request.k,
        "metric": request.metric,
        "precision": request.precision,
        "ranks": [list(layer) for layer in schedule.ranks],
        "pieces": schedule.pieces,
    }
    return Restart(comm, member, Checkpoint(request.checkpoint, of), stop, request.checkpoint_seconds)
