"""One run of the alignment: read the pairs and the reads, align each pair on one rank, write what overlaps."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from mpi4py import MPI

from hpc_jobs import neighbours, store
from hpc_jobs.align_pairs import overlaps
from hpc_jobs.align_pairs.alignment import Aligner
from hpc_jobs.align_pairs.pairs import Pairs, share_of_pairs
from hpc_jobs.align_pairs.reads import NodeReads, ReadsError, checked_bases
from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.collective import Refused, together
from hpc_jobs.mpi_dna_seq.metrics import Progress

PAIRS_A_GROUP = 65_536
REFUSALS = (store.StoreError, neighbours.NeighboursError, overlaps.OverlapsError, ReadsError)


def main(arguments: list[str]) -> int:
    """Parse, run and give the exit status; a rank that fails unexpectedly takes all others down with it."""
    comm = MPI.COMM_WORLD
    options = _parser().parse_args(arguments)
    try:
        run(
            comm,
            store_directory=options.store,
            reads_directory=options.reads,
            knn_directory=options.neighbours,
            out=options.out,
            mutual=options.pairs == "mutual",
            minimum_overlap=options.minimum_overlap,
            minimum_identity=options.minimum_identity,
        )
    except Refused:
        return 1
    except BaseException:
        print(f"rank {comm.rank} on {MPI.Get_processor_name()} failed:", file=sys.stderr)
        traceback.print_exc()
        sys.stderr.flush()
        comm.Abort(1)
    return 0


def run(
    comm: MPI.Intracomm,
    *,
    store_directory: Path,
    reads_directory: Path,
    knn_directory: Path,
    out: Path,
    mutual: bool,
    minimum_overlap: int,
    minimum_identity: float,
) -> None:
    """Write the overlaps among the pairs of a k-NN result to ``out``; collective.

    A finished result of the same request stays as it is; what a killed run left is done again.

    :raises Refused: on every rank: an input is missing, damaged, or does not belong to the others, …
    """
    began = time.perf_counter()

    def prepare() -> tuple[store.StoreManifest, neighbours.NeighbourManifest, overlaps.Request, bool]:
        """The inputs, and whether their result is there; rank 0 makes and clears ``out`` where it is not."""
        manifest = store.read_manifest(store_directory)
        knn = neighbours.verify(knn_directory) if comm.rank == 0 else neighbours.find(knn_directory)
        store_sha256 = sha256_of(store_directory / store.MANIFEST)
        if knn is None or knn.store_sha256 != store_sha256:
            raise neighbours.NeighboursError(
                f"{knn_directory} is no k-NN result of the embedding store {store_directory}; compute it anew"
            )
        knn_sha256 = sha256_of(knn_directory / "manifest.json")
        request = overlaps.Request(store_sha256, knn_sha256, mutual, minimum_overlap, minimum_identity)
        if comm.rank != 0:
            return manifest, knn, request, False
        found = overlaps.find(out)
        finished = found is not None and found.request == request
        if finished:
            overlaps.verify(out)
        else:
            out.mkdir(parents=True, exist_ok=True)
            overlaps.clear(out)
        return manifest, knn, request, finished

    manifest, knn, request, finished = together(comm, prepare, refusals=REFUSALS)
    if comm.bcast(finished):
        _say(comm, f"unchanged: {out} already holds the overlaps of this k-NN result")
        return
    pairs = share_of_pairs(comm, knn_directory, knn, mutual=mutual)
    total = comm.allreduce(len(pairs))
    mine = range(comm.rank, len(manifest.shards), comm.size)
    counted = together(
        comm, lambda: checked_bases(reads_directory, store_directory, manifest, mine), refusals=REFUSALS
    )
    bases = {number: count for share in comm.allgather(counted) for number, count in share.items()}
    reads = NodeReads(comm, manifest, [bases[number] for number in range(len(manifest.shards))])
    together(comm, lambda: reads.fill(reads_directory), refusals=REFUSALS)
    loaded = time.perf_counter()
    _say(
        comm,
        f"aligning {total:,} {'mutual' if mutual else 'k-NN'} pairs of {manifest.rows:,} reads, "
        f"{sum(bases.values()):,} bases, on {comm.size} ranks",
    )

    progress = Progress(comm, out, pairs=total)
    progress.write("running")
    aligner = Aligner(minimum_length=minimum_overlap, minimum_identity=minimum_identity)
    part = _write_part(out, comm, _aligned(aligner, reads, pairs, progress))
    aligned_seconds = time.perf_counter() - loaded
    reads.close()
    parts = comm.gather(part)
    per_rank = comm.gather({"rank": comm.rank, "pairs": len(pairs), "align_seconds": aligned_seconds})
    if parts is None or per_rank is None:
        return
    slowest = max(rank["align_seconds"] for rank in per_rank)
    metrics = {
        "pairs": total,
        "pairs_per_second": total / slowest,
        "load_seconds": loaded - began,
        "align_seconds": slowest,
        "seconds": time.perf_counter() - began,
        "per_rank": per_rank,
    }
    write_whole(out / "metrics.json", json.dumps(metrics, indent=2).encode() + b"\n")
    result = overlaps.OverlapManifest(request, total, tuple(parts))
    overlaps.write_manifest(out, result)
    progress.write("done")
    _say(
        comm,
        f"done: {result.overlaps:,} of {total:,} pairs overlap; {slowest:.2f} s, {total / slowest:,.0f} pairs/s",
    )


def _aligned(
    aligner: Aligner, reads: NodeReads, pairs: Pairs, progress: Progress
) -> Iterator[pa.RecordBatch]:
    """The overlaps among the pairs, a batch for each :data:`PAIRS_A_GROUP` of them."""
    for start in range(0, len(pairs), PAIRS_A_GROUP):
        found = []
        group = slice(start, start + PAIRS_A_GROUP)
        columns = (pairs.first[group], pairs.second[group], pairs.similarity[group])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for number, (first, second, similarity) in enumerate(rows, start):
            overlap = aligner.overlap(reads[first], reads[second])
            if overlap is not None:
                found.append((first, second, similarity, *overlap))
            progress.report(number + 1)
        fields = zip(*found, strict=True) if found else [()] * len(overlaps.SCHEMA)
        yield pa.record_batch(
            [pa.array(column, field.type) for column, field in zip(fields, overlaps.SCHEMA, strict=True)],
            schema=overlaps.SCHEMA,
        )


def _write_part(out: Path, comm: MPI.Comm, batches: Iterator[pa.RecordBatch]) -> neighbours.Part:
    path = out / overlaps.part_name(comm.rank)
    temporary = path.with_name(f".{path.name}")
    rows = 0
    with pq.ParquetWriter(temporary, overlaps.SCHEMA, compression="zstd") as writer:
        for batch in batches:
            rows += len(batch)
            writer.write_batch(batch)
    part = neighbours.Part(path.name, rows, temporary.stat().st_size, sha256_of(temporary))
    temporary.replace(path)
    return part


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hpc_jobs.align_pairs",
        description="Align the pairs of a k-NN result and keep those whose reads overlap.",
    )
    for name, intent in (
        ("store", "directory of the embedding store"),
        ("reads", "directory of the reads that it embeds"),
        ("neighbours", "directory of the k-NN result"),
        ("out", "directory for the overlaps"),
    ):
        parser.add_argument(f"--{name}", type=Path, required=True, help=intent)
    parser.add_argument(
        "--pairs",
        choices=["mutual", "all"],
        default="mutual",
        help="align reads that name each other as neighbours (default), or every edge",
    )
    parser.add_argument(
        "--minimum-overlap", type=_positive, default=50, help="columns of an alignment (default 50)"
    )
    parser.add_argument(
        "--minimum-identity", type=_share, default=0.9, help="share of columns that match (default 0.9)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return share


def _say(comm: MPI.Comm, text: str) -> None:
    if comm.rank == 0:
        print(text, flush=True)
