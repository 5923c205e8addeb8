"""One turn of the loop, by the project's own jobs: neighbours, overlaps, chains, pairs, training."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mpi4py import MPI

from hpc_jobs import neighbours, store
from hpc_jobs.align_pairs import job as align_pairs
from hpc_jobs.align_pairs import overlaps
from hpc_jobs.checked_file import sha256_of
from hpc_jobs.mpi_dna_seq import job as mpi_dna_seq
from hpc_jobs.mpi_dna_seq.request import Request
from hpc_jobs.read_graph.chains import ChainLimits, Overlaps, chains
from tasks.encoders.kmer import KmerMlp
from tasks.learning.batch_results import Edges, Placements
from tasks.learning.contrastive import train
from tasks.learning.mix import batch_pairs, with_synthetic
from tasks.learning.pairs import Mixture, PairSource, ReadPairs, ReadWindows
from tasks.learning.plans import first_plan, retraining_plan
from tests.benchmarks.accuracy.measures import K
from tests.benchmarks.accuracy.reads import Reads

MINIMUM_OVERLAP, MINIMUM_IDENTITY = 50, 0.9
"""What the alignment job asks for where nobody says otherwise."""
NO_EDGES = Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
NO_PLACEMENTS = Placements(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True)
class Graph:
    """What one encoder finds in a batch: k-NN edges, and where reads lie on chains of verified overlaps.

    :param seconds: of the k-NN, of the alignment and of the chains.
    """

    edges: Edges
    placements: Placements
    seconds: dict[str, float]


def graph_of(encoder: KmerMlp, reads: Reads) -> Graph:
    """Embed the batch, and let the jobs of phase 2 run on it, one rank each."""
    started = time.perf_counter()
    vectors = encoder.encode_sequences(reads.sequences)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        stored, knn, text, aligned = (Path(scratch) / name for name in ("store", "knn", "reads", "overlaps"))
        store.write_store(stored, reads.ids, vectors, encoder_uri="bench", encoder_revision="bench")
        mpi_dna_seq.run(MPI.COMM_WORLD, Request(stored, knn, k=K))
        found = neighbours.read(knn)
        with_neighbours = time.perf_counter()
        _write_reads(text, stored, reads)
        align_pairs.run(
            MPI.COMM_WORLD,
            store_directory=stored,
            reads_directory=text,
            knn_directory=knn,
            out=aligned,
            mutual=True,
            minimum_overlap=MINIMUM_OVERLAP,
            minimum_identity=MINIMUM_IDENTITY,
        )
        verified = overlaps.read(aligned)
    with_overlaps = time.perf_counter()
    columns = {name: verified[name].to_numpy() for name in Overlaps.__dataclass_fields__}
    placed = chains(reads.sequences.lengths, Overlaps(**columns), ChainLimits())
    seconds = {
        "neighbours": with_neighbours - started,
        "overlaps": with_overlaps - with_neighbours,
        "chains": time.perf_counter() - with_overlaps,
    }
    edges = Edges(*(found[name].to_numpy() for name in ("query", "neighbour", "score")))
    return Graph(
        edges, Placements(*(placed[name].to_numpy() for name in ("read", "chain", "offset"))), seconds
    )


def first_encoder(reads: Reads, *, seed: int) -> KmerMlp:
    """Trained on windows of the reads, as the first version of an encoder is."""
    encoder = KmerMlp.untrained(reads.sequences, seed=seed)
    train(encoder, ReadWindows(reads.sequences), replace(first_plan(KmerMlp), seed=seed), report=_quiet)
    return encoder


def trained_on(parent: KmerMlp, pairs: PairSource, *, seed: int) -> KmerMlp:
    """A copy of ``parent``, trained on ``pairs`` by the plan of a retraining."""
    encoder = copy.deepcopy(parent)
    train(encoder, pairs, replace(retraining_plan(KmerMlp), seed=seed), report=_quiet)
    return encoder


def pairs_of(reads: Reads, edges: Edges = NO_EDGES, placements: Placements = NO_PLACEMENTS) -> Mixture:
    """The mix that the project learns from, given so much of a graph; the reads' own pairs where there is none."""
    pairs = batch_pairs(pa.chunked_array([reads.ids]), reads.sequences, edges, placements)
    return Mixture.of(with_synthetic(pairs, reads.sequences))


def oracle_pairs(reads: Reads, *, seed: int) -> ReadPairs:
    """Pairs of reads from anywhere on one genome, which only the simulation knows."""
    random = np.random.default_rng(seed)
    order = np.argsort(reads.species, kind="stable")
    counts = np.bincount(reads.species)
    begins = np.cumsum(counts) - counts
    left = random.integers(0, len(reads), 20 * len(reads))
    of = reads.species[left]
    right = order[begins[of] + (random.random(len(left)) * counts[of]).astype(np.int64)]
    return ReadPairs(reads.sequences, left, right, names=("anywhere on the genome",))


def _write_reads(directory: Path, stored: Path, reads: Reads) -> None:
    """The reads as phase 1 keeps them: a file for each shard of the embedding store."""
    directory.mkdir()
    start, files = 0, []
    sequences = reads.sequences.to_arrow()
    for shard in store.read_manifest(stored).shards:
        rows = slice(start, start := start + shard.rows)
        table = pa.table({"read_id": reads.ids[rows], "sequence": sequences[rows].cast(pa.string())})
        pq.write_table(table, directory / shard.name)
        files.append({"name": shard.name, "sha256": sha256_of(directory / shard.name)})
    (directory / store.MANIFEST).write_text(json.dumps({"files": files}))


def _quiet(_: str) -> None:
    """No line of progress: several trainings run at once."""
