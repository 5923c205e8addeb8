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
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, get_args

from mpi4py import MPI

from hpc_jobs import neighbours, store
from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.mpi_dna_seq import build
from hpc_jobs.mpi_dna_seq.checkpoint import Checkpoint, CheckpointError
from hpc_jobs.mpi_dna_seq.members import Member, RingError
from hpc_jobs.mpi_dna_seq.metrics import Progress, RankMetrics, memory_bytes, summary
from hpc_jobs.mpi_dna_seq.restart import Restart, StopSignal
from hpc_jobs.mpi_dna_seq.ring import HalfRing
from hpc_jobs.mpi_dna_seq.schedule import Schedule
from hpc_jobs.mpi_dna_seq.tiles import Metric, Precision, comparison
from hpc_jobs.mpi_dna_seq.vectors import StoredVectors

SAVED = 75
"""Exit status of a run that was told to stop and has saved what it had: start it again, and it goes on."""
Result = TypeVar("Result")


class Refused(Exception):
    """The input is at fault; rank 0 has said why, and every rank stops with this."""


@dataclass(frozen=True)
class Request:
    """What is to be computed, and how; the fields are the options of the command line.

    :param metric: see :func:`hpc_jobs.mpi_dna_seq.tiles.comparison`; so are precision and device.
    :param replication: rings that hold all vectors each and share the steps.
    :param ranks_per_member: None: the ranks of a node are one member of the ring.
    :param checkpoint: directory; None: nothing is saved.
    """

    store: Path
    out: Path
    k: int = 10
    metric: Metric = "cosine"
    precision: Precision = "fp32"
    device: str | None = None
    tile: int = 512
    replication: int = 1
    ranks_per_member: int | None = None
    checkpoint: Path | None = None
    checkpoint_seconds: float = 60.0


def main(arguments: list[str]) -> int:
    """Parse, run and give the exit status; a rank that fails unexpectedly takes all others down with it."""
    comm = MPI.COMM_WORLD
    request = Request(**vars(_parser().parse_args(arguments)))
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


def run(comm: MPI.Comm, request: Request) -> bool:
    """Write the nearest neighbours of every row of the store to ``request.out``; by all ranks at once.

    For the cosine, vectors are brought to length 1 first; zero vectors have cosine 0 with everything, so among
    equals the lowest rows are their neighbours. Where
    there are fewer than ``k`` other rows, every read gets all of them. A finished result for this store and
    these parameters stays as it is.

    :return: False where it was told to stop and has saved what it had.
    :raises Refused: on every rank: the store is missing or damaged, a vector holds NaN or infinity, …
    """
    began = time.perf_counter()
    stop = StopSignal() if request.checkpoint else None
    machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
    _together(comm, lambda: build.build() if machine.rank == 0 else None)
    if comm.bcast(_together(comm, lambda: comm.rank == 0 and _is_finished(request))):
        _say(comm, f"unchanged: {request.out} already holds the {request.k} nearest neighbours of this store")
        return True
    manifest = _together(comm, lambda: _verified_manifest(comm, request.store))
    member = _together(
        comm, lambda: Member(comm, ranks_per_member=request.ranks_per_member, layers=request.replication)
    )
    schedule = Schedule.of(manifest.rows, member.ranks)
    k = max(min(request.k, manifest.rows - 1), 0)
    ring = _together(comm, lambda: HalfRing(member, schedule, dim=manifest.dim, k=k))
    vectors = StoredVectors(request.store, manifest, unit=request.metric == "cosine")
    _together(comm, lambda: vectors.read(ring.strip, ring.home.vectors))
    loaded = time.perf_counter()
    _say(comm, _plan(comm, request, manifest, schedule))

    restart = _restart(comm, request, member, schedule, stop)
    done, done_pairs = (0, 0)
    if restart:
        done, done_pairs = comm.bcast(_together(comm, restart.find))
    if restart and done:
        _together(comm, lambda: restart.restore(ring, done))
        units = len(schedule.units(0))
        _say(comm, f"goes on after unit {done:,} of {units:,}, from the checkpoint in {request.checkpoint}")
    pairs = manifest.rows * (manifest.rows - 1) // 2
    progress = Progress(comm, request.out, pairs=pairs, done=done_pairs)
    progress.write("running")

    def between(pairs: int) -> None:
        ring.advance()
        progress.report(pairs)

    compare = comparison(
        metric=request.metric,
        precision=request.precision,
        device=request.device,
        dim=manifest.dim,
        tile=request.tile,
        between=between,
    )

    def go_on(units: int) -> bool:
        before = done_pairs if comm.rank == 0 else 0
        return restart is None or restart.go_on(ring, units, before + compare.pairs)

    if k and not ring.compare(compare, vectors.read, done=done, go_on=go_on):
        _say(comm, f"told to stop: saved in {request.checkpoint}; started again, it goes on from there")
        progress.write("saved")
        comm.Barrier()
        return False
    in_use = memory_bytes()
    comm.Barrier()
    compared = time.perf_counter()

    part = _write_part(request.out, member, ring)
    metrics = RankMetrics(
        rank=comm.rank,
        host=MPI.Get_processor_name(),
        rows=ring.strip.rows,
        pairs=compare.pairs,
        pairs_scored=compare.pairs_scored,
        load_seconds=loaded - began,
        compare_seconds=compared - loaded,
        product_seconds=compare.product_seconds,
        merge_seconds=compare.merge_seconds,
        communication_seconds=ring.communication_seconds,
        waiting_seconds=member.waiting_seconds,
        checkpoint_seconds=restart.seconds if restart else 0.0,
        write_seconds=time.perf_counter() - compared,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        memory_bytes=in_use,
    )
    parts, ranks = comm.gather(part), comm.gather(metrics)
    if parts is not None and ranks is not None:
        took = {
            "k": request.k,
            "metric": request.metric,
            "precision": request.precision,
            "members": schedule.members,
            "replication": schedule.layers,
            "pairs_of_earlier_runs": done_pairs,
            **summary(ranks, dim=manifest.dim, rows=manifest.rows, seconds=time.perf_counter() - began),
        }
        write_whole(request.out / "metrics.json", json.dumps(took, indent=2).encode() + b"\n")
        files = sorted((part for part in parts if part), key=lambda part: part.name)
        result = neighbours.NeighbourManifest(
            manifest.rows,
            request.k,
            sha256_of(request.store / store.MANIFEST),
            tuple(files),
            request.metric,
        )
        neighbours.write_manifest(request.out, result)
        progress.write("done")
        _say(
            comm,
            f"done: {result.edges:,} neighbours; compared in {took['compare_seconds']:.2f} s, "
            f"{took['pairs_per_second']:.3g} pairs/s, {took['effective_gflops']:.0f} effective GFLOP/s",
        )
    if restart:
        restart.finish()
    member.free()
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hpc_jobs.mpi_dna_seq",
        description="Exact k nearest neighbours of all against all.",
        epilog=f"Exit status: 0 done, 1 refused or failed, {SAVED} told to stop (SIGUSR1 or SIGTERM) and saved: "
        "start it again with the same options and ranks.",
    )
    parser.add_argument("--store", type=Path, required=True, help="directory of an embedding store")
    parser.add_argument("--out", type=Path, required=True, help="directory for the neighbours")
    parser.add_argument("--k", type=_positive, default=10, help="neighbours per read (default 10)")
    parser.add_argument(
        "--metric",
        choices=get_args(Metric),
        default="cosine",
        help="the score: cosine (default), dot product, or l2: minus the squared distance",
    )
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="of the product that proposes pairs (default fp32); the answer is the same",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="multiply on this torch device, such as cuda (default: this processor)",
    )
    parser.add_argument("--tile", type=_positive, default=512, help="rows of a tile (default 512)")
    parser.add_argument(
        "--replication",
        type=_positive,
        default=1,
        metavar="C",
        help="rings that hold all vectors each and share the work: C times the memory, fewer messages (default 1)",
    )
    parser.add_argument(
        "--ranks-per-member",
        type=_positive,
        metavar="R",
        help="ranks that share memory and are one member of the ring, such as those of a NUMA domain "
        "(default: all of a node)",
    )
    parser.add_argument("--checkpoint", type=Path, metavar="DIR", help="save there, and go on from there")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="between two checkpoints (default 60)",
    )
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
    except (
        store.StoreError,
        neighbours.NeighboursError,
        build.BuildError,
        RingError,
        CheckpointError,
    ) as error:
        problem = str(error)
    problems = [problem for problem in comm.allgather(problem) if problem]
    if not problems:
        return result
    if comm.rank == 0:
        others = f"\n({len(problems) - 1} more ranks refuse their part)" if len(problems) > 1 else ""
        print(f"refused: {problems[0]}{others}", file=sys.stderr, flush=True)
    raise Refused


def _plan(comm: MPI.Comm, request: Request, manifest: store.StoreManifest, schedule: Schedule) -> str:
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
    comm: MPI.Comm, request: Request, member: Member, schedule: Schedule, stop: StopSignal | None
) -> Restart | None:
    if request.checkpoint is None or stop is None:
        return None
    of = {
        "store_sha256": sha256_of(request.store / store.MANIFEST),
        "k": request.k,
        "metric": request.metric,
        "precision": request.precision,
        "ranks": [list(layer) for layer in schedule.ranks],
        "pieces": schedule.pieces,
    }
    return Restart(comm, member, Checkpoint(request.checkpoint, of), stop, request.checkpoint_seconds)


def _is_finished(request: Request) -> bool:
    """True where ``out`` holds the finished, undamaged result; else it is made and cleared."""
    store.read_manifest(request.store)
    found = neighbours.find(request.out)
    wanted = (sha256_of(request.store / store.MANIFEST), request.k, request.metric)
    if found and (found.store_sha256, found.k, found.metric) == wanted:
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


def _verified_manifest(comm: MPI.Comm, directory: Path) -> store.StoreManifest:
    """The manifest, after each rank has checked its share of the shards."""
    manifest = store.read_manifest(directory)
    for shard in manifest.shards[comm.rank :: comm.size]:
        if problem := store.shard_problem(directory, manifest, shard):
            raise store.StoreError(f"the embedding store {directory} is damaged: {problem}; fetch it again")
    return manifest


def _write_part(out: Path, member: Member, ring: HalfRing) -> neighbours.Part | None:
    """This rank's part of the result; only layer 0 has all of it."""
    if member.layer:
        return None
    number = sum(member.ranks[0][: member.position]) + member.rank
    best = ring.home.best
    return neighbours.write_part(out, number, first_row=ring.strip.first, ids=best.ids, scores=best.scores)
