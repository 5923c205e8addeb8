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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from mpi4py import MPI

from hpc_jobs import neighbours, store
from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.mpi_dna_seq import approximate, build
from hpc_jobs.mpi_dna_seq.cells import Cells
from hpc_jobs.mpi_dna_seq.checkpoint import Checkpoint, CheckpointError
from hpc_jobs.mpi_dna_seq.members import Member, RingError
from hpc_jobs.mpi_dna_seq.metrics import Progress, RankMetrics, memory_bytes, summary
from hpc_jobs.mpi_dna_seq.restart import Restart, StopSignal
from hpc_jobs.mpi_dna_seq.ring import HalfRing
from hpc_jobs.mpi_dna_seq.schedule import Schedule
from hpc_jobs.mpi_dna_seq.tiles import Best, Comparison, Metric, Precision, comparison
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
    :param approximate: look in the nearest ``nprobe`` of so many ``cells`` only.
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
    approximate: bool = False
    cells: int | None = None
    nprobe: int | None = None


def main(arguments: list[str]) -> int:
    """Parse, run and give the exit status; a rank that fails unexpectedly takes all others down with it."""
    comm = MPI.COMM_WORLD
    request = _request(arguments)
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
    _together(comm, lambda: build.build() if machine.rank == 0 else None)
    if comm.bcast(_together(comm, lambda: comm.rank == 0 and _is_finished(request))):
        _say(comm, f"unchanged: {request.out} already holds the {request.k} nearest neighbours of this store")
        return True
    manifest = _together(comm, lambda: _verified_manifest(comm, request.store))
    if request.approximate:
        approximate.search(
            comm,
            store_directory=request.store,
            manifest=manifest,
            out=request.out,
            k=request.k,
            metric=request.metric,
            precision=request.precision,
            cells=_cells(request, manifest),
            comparison=lambda between: _comparison(request, manifest, between),
            together=lambda step: _together(comm, step),
            began=began,
        )
        return True
    found = _all_against_all(comm, request, manifest, stop, began=began)
    if found is None:
        return False
    compared = time.perf_counter()
    part = _write_part(request.out, found)
    metrics = RankMetrics(**found.took, write_seconds=time.perf_counter() - compared)
    parts, ranks = comm.gather(part), comm.gather(metrics)
    if parts is not None and ranks is not None:
        took = found.about | summary(
            ranks, dim=manifest.dim, rows=manifest.rows, seconds=time.perf_counter() - began
        )
        write_whole(request.out / "metrics.json", json.dumps(took, indent=2).encode() + b"\n")
        files = sorted((part for part in parts if part), key=lambda part: part.name)
        store_sha256 = sha256_of(request.store / store.MANIFEST)
        result = neighbours.NeighbourManifest(
            manifest.rows, request.k, store_sha256, tuple(files), request.metric
        )
        neighbours.write_manifest(request.out, result)
        _say(
            comm,
            f"done: {result.edges:,} neighbours; compared in {took['compare_seconds']:.2f} s, "
            f"{took['pairs_per_second']:.3g} pairs/s, {took['effective_gflops']:.0f} effective GFLOP/s",
        )
    found.finish()
    return True


@dataclass(frozen=True)
class Found:
    """What one rank has found by all against all, and what that took.

    :param first_row: of the consecutive rows that ``best`` has the lists of.
    :param part: its place among the parts of the result; None where another rank has these rows.
    :param took: fields of :class:`~hpc_jobs.mpi_dna_seq.metrics.RankMetrics`, but that of the writing.
    :param about: how it was found, for ``metrics.json``.
    :param finish: called by all ranks once the result is written; ``best`` is gone then.
    """

    first_row: int
    best: Best
    part: int | None
    took: dict[str, Any]
    about: dict[str, Any]
    finish: Callable[[], None]


def _all_against_all(
    comm: MPI.Intracomm,
    request: Request,
    manifest: store.StoreManifest,
    stop: StopSignal | None,
    *,
    began: float,
) -> Found | None:
    """The exact neighbours of this rank's rows, by the half ring; None where it was told to stop and has saved."""
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
    done, done_pairs = comm.bcast(_together(comm, restart.find)) if restart else (0, 0)
    if restart and done:
        _together(comm, lambda: restart.restore(ring, done))
        units = len(schedule.units(0))
        _say(comm, f"goes on after unit {done:,} of {units:,}, from the checkpoint in {request.checkpoint}")
    progress = Progress(comm, request.out, pairs=manifest.rows * (manifest.rows - 1) // 2, done=done_pairs)
    progress.write("running")

    def between(pairs: int) -> None:
        ring.advance()
        progress.report(pairs)

    compare = _comparison(request, manifest, between)

    def go_on(units: int) -> bool:
        before = done_pairs if comm.rank == 0 else 0
        return restart is None or restart.go_on(ring, units, before + compare.pairs)

    if k and not ring.compare(compare, vectors.read, done=done, go_on=go_on):
        _say(comm, f"told to stop: saved in {request.checkpoint}; started again, it goes on from there")
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
        "k": request.k,
        "metric": request.metric,
        "precision": request.precision,
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


def _request(arguments: list[str]) -> Request:
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.approximate and (options.cells or options.nprobe):
        parser.error("--cells and --nprobe go with --approximate")
    if options.approximate and options.metric == "dot":
        parser.error(
            "--approximate goes with cosine and l2: cells of near vectors do not serve the dot product"
        )
    return Request(**vars(options))


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
    parser.add_argument(
        "--approximate", action="store_true", help="compare within cells of near vectors; measures its recall"
    )
    parser.add_argument(
        "--cells", type=_positive, metavar="C", help="cells that k-means makes (default: square root of rows)"
    )
    parser.add_argument(
        "--nprobe", type=_positive, metavar="n", help=f"nearest cells of a row (default {approximate.NPROBE})"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _say(comm: MPI.Intracomm, text: str) -> None:
    if comm.rank == 0:
        print(text, flush=True)


def _together(comm: MPI.Intracomm, step: Callable[[], Result]) -> Result:
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
        approximate.CellsError,
    ) as error:
        problem = str(error)
    problems = [problem for problem in comm.allgather(problem) if problem]
    if not problems:
        return result
    if comm.rank == 0:
        more = len(set(problems)) - 1
        others = f"\n({more} more ranks refuse their part)" if more else ""
        print(f"refused: {problems[0]}{others}", file=sys.stderr, flush=True)
    raise Refused


def _plan(comm: MPI.Intracomm, request: Request, manifest: store.StoreManifest, schedule: Schedule) -> str:
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
    manifest = store.read_manifest(request.store)
    cells = _cells(request, manifest) if request.approximate else None
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


def _cells(request: Request, manifest: store.StoreManifest) -> Cells:
    return approximate.cells_for(manifest.rows, cells=request.cells, nprobe=request.nprobe)


def _comparison(
    request: Request, manifest: store.StoreManifest, between: Callable[[int], None]
) -> Comparison:
    return comparison(
        metric=request.metric,
        precision=request.precision,
        device=request.device,
        dim=manifest.dim,
        tile=request.tile,
        between=between,
    )


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
