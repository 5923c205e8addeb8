"""A batch as the pipeline leaves it, small, made through the functions that the pipeline uses."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpc_jobs.read_graph.communities import METHOD, find_communities
from hpc_jobs.read_graph.mutual import mutual_edges
from hpc_jobs.store import Shard, StoreManifest, shard_bytes
from tasks import results
from tasks.batches import Batch, BatchRequest, record_request
from tasks.cost.report import cost_report
from tasks.drift.measure import measure_drift
from tasks.object_store import ObjectStore
from tasks.reads.accounting import QualityAccounting
from tasks.reads.block import QuarantinedRecord, ReadBlock
from tasks.reads.block_builder import BlockLimits
from tasks.reads.quality import QualityFilter
from tasks.reads.sources import read_blocks
from tasks.report.page import build_report

REQUEST = BatchRequest(
    encoder="registry://kmer-mlp",
    top_k=10,
    trim_quality=20,
    min_length=50,
    min_mean_quality=20.0,
    max_n_fraction=0.1,
    max_quarantine_fraction=0.1,
)
ENCODER = "registry://kmer-mlp@v2-1a2b3c4d"
CARD = {
    "name": "kmer-mlp",
    "version": "v2-1a2b3c4d",
    "parent": "v1-99887766",
    "created_at": "2026-11-19T04:00:00+00:00",
    "files": {"model.safetensors": "1a2b3c4d" * 8},
    "metrics": {"recall_at_1": 0.8125, "recall_at_10": 0.93},
    "data": {"batch_id": "2026-11-19", "reads": 2000},
}
SHARD_RECORDS = 100
NASTY = "<svg onload=alert('x')>&\"lab\""
"""A sample name that would run if it were not escaped."""


@dataclass
class DemoBatch:
    """What was put into the batch, to compare the page with."""

    data_uri: str
    batch_id: str
    kept_ids: list[str] = field(default_factory=list)
    accounting: dict[str, QualityAccounting] = field(default_factory=dict)
    cluster_sizes: list[int] = field(default_factory=list)
    edges: int = 0


@pytest.fixture
def publish_batch(s3_root: str) -> Callable[..., DemoBatch]:
    """A function: FASTQ text per sample -> a batch with every result that the page reads."""
    return partial(publish_demo, s3_root)


@pytest.fixture(scope="module")
def finished_batch(s3_endpoint: str) -> Iterator[DemoBatch]:
    """A batch of two samples with its page, for tests that leave it as it is."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("STRANDLOOP_CODE_VERSION", "0.1.0+abc1234")
        bucket = f"test-{uuid.uuid4().hex[:12]}"
        boto3.client("s3").create_bucket(Bucket=bucket)
        gut = simulate_fastq(120, [0.35, 0.5], seed=1).replace("@read7\n", "read7\n", 1)
        soil = simulate_fastq(100, [0.45, 0.62], seed=2).replace("\n+\n", "\n<script>1</script>\n", 1)
        demo = publish_demo(f"s3://{bucket}", {"gut": gut, NASTY: soil})
        build_report(demo.data_uri, demo.batch_id)
        yield demo


@pytest.fixture
def simulate() -> Callable[..., str]:
    """:func:`simulate_fastq`."""
    return simulate_fastq


def simulate_fastq(
    reads: int, genomes: list[float], *, seed: int, length: int = 150, flawless: bool = False
) -> str:
    """Reads of random genomes of the given GC contents, with quality that falls towards the 3' end.

    Unless ``flawless``, some are full of N and some are of low quality throughout.
    """
    rng = np.random.default_rng(seed)
    texts = [_genome(rng, gc, 20 * reads + 2 * length) for gc in genomes]
    records = []
    for number in range(reads):
        text = texts[rng.integers(len(texts))]
        start = rng.integers(len(text) - length)
        bases = text[start : start + length].copy()
        decay = rng.gamma(2.0, 6.0)
        quality = 37 - decay * np.linspace(0, 1.6, length) ** 2 + rng.normal(0, 2, length)
        if flawless:
            quality = np.full(length, 38.0)
        elif rng.random() < 0.02:
            bases[rng.random(length) < 0.3] = ord("N")
        elif rng.random() < 0.05:
            quality -= 17
        wrong = rng.random(length) < 0.01
        bases[wrong] = rng.choice(np.frombuffer(b"ACGT", np.uint8), wrong.sum())
        line = (np.clip(quality, 2, 40).astype(np.uint8) + 33).tobytes().decode()
        records.append(f"@read{number}\n{bases.tobytes().decode()}\n+\n{line}\n")
    return "".join(records)


def publish_demo(
    data_uri: str, fastq: dict[str, str], *, batch_id: str = "2026-11-20", top_k: int = 10
) -> DemoBatch:
    """Publish every result but the report, and give what went in."""
    store, batch, demo = ObjectStore(), Batch(data_uri, batch_id), DemoBatch(data_uri, batch_id)
    record_request(store, batch, REQUEST, hashlib.sha256(b"landing").hexdigest())
    keep = QualityFilter(
        trim_quality=REQUEST.trim_quality,
        min_length=REQUEST.min_length,
        min_mean_quality=REQUEST.min_mean_quality,
        max_n_fraction=REQUEST.max_n_fraction,
    )
    quarantined: list[QuarantinedRecord] = []
    shards, read_files, vectors = [], {}, []
    for sample, text in fastq.items():
        demo.accounting[sample] = QualityAccounting()
        stream = io.BytesIO(gzip.compress(text.encode()))
        for part, block in enumerate(
            read_blocks(
                stream, source=f"{sample}.fq.gz", quality_offset=33, limits=BlockLimits(records=SHARD_RECORDS)
            )
        ):
            filtered = keep.apply(block)
            counted = QualityAccounting.of(block, filtered)
            demo.accounting[sample] += counted
            quarantined += block.quarantined
            table, own = _reads(sample, filtered.kept)
            if len(table) == 0:
                continue
            name = f"{sample}-{part:05d}.parquet"
            read_files[name] = _parquet(table, compression="zstd")
            body = shard_bytes(table["read_id"].combine_chunks(), own)
            store.put_bytes(batch.results / "embeddings" / name, body)
            shards.append(Shard(name, len(own), len(body), hashlib.sha256(body).hexdigest()))
            vectors.append(own)
            demo.kept_ids += table["read_id"].to_pylist()
    _publish_reads(store, batch, demo, quarantined, read_files)
    _publish_graph(store, batch, demo, np.concatenate(vectors), top_k)
    cost_report(data_uri, batch_id, _jobs())
    store.put_json(batch.encoders / "kmer-mlp" / "v2-1a2b3c4d" / "card.json", CARD)
    manifest = StoreManifest(
        rows=len(demo.kept_ids),
        dim=vectors[0].shape[1],
        dtype="float32",
        normalised=True,
        encoder_uri=ENCODER,
        encoder_revision="1a2b3c4d" * 8,
        shards=tuple(shards),
    )
    store.put_json(batch.results / "embeddings" / "manifest.json", manifest.to_json())
    measure_drift(data_uri, batch_id, threshold=0.1)
    return demo


def _publish_reads(
    store: ObjectStore,
    batch: Batch,
    demo: DemoBatch,
    quarantined: list[QuarantinedRecord],
    read_files: dict[str, bytes],
) -> None:
    total = sum(demo.accounting.values(), QualityAccounting())
    quality = {
        "total": total.to_json(),
        "samples": {name: counted.to_json() for name, counted in demo.accounting.items()},
    }
    body = json.dumps(quality).encode()
    results.publish(store, batch.results / "quality", {"quality.json": body}, {})
    lines = "".join(json.dumps(asdict(record)) + "\n" for record in quarantined)
    results.publish(store, batch.results / "quarantine", {"records.jsonl": lines.encode()}, {})
    results.publish(store, batch.results / "reads", read_files, {"reads": len(demo.kept_ids)})


def _publish_graph(
    store: ObjectStore, batch: Batch, demo: DemoBatch, vectors: np.ndarray, top_k: int
) -> None:
    rows = len(vectors)
    k = min(top_k, rows - 1)
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    neighbour = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    query = np.repeat(np.arange(rows), k)
    cosine = np.take_along_axis(scores, neighbour, axis=1).ravel().astype(np.float32)
    ids = np.array(demo.kept_ids, dtype=object)
    graph = pa.table(
        {
            "read_id": pa.array(ids[query], pa.string()),
            "neighbour_id": pa.array(ids[neighbour.ravel()], pa.string()),
            "rank": pa.array(np.tile(np.arange(1, k + 1), rows), pa.int32()),
            "cosine": pa.array(cosine),
        }
    )
    half = len(graph) // 2
    demo.edges = len(graph)
    files = {"graph-00000.parquet": _parquet(graph[:half]), "graph-00001.parquet": _parquet(graph[half:])}
    details = {"reads": rows, "edges": len(graph), "k": k, "encoder_uri": ENCODER}
    results.publish(store, batch.results / "graph", files, details)
    found = find_communities(rows, mutual_edges(query, neighbour.ravel(), cosine))
    demo.cluster_sizes = found.sizes.tolist()
    clusters = pa.table({"read_id": pa.array(demo.kept_ids), "cluster": pa.array(found.labels, pa.int32())})
    details = {
        "clusters": len(found.sizes),
        "largest": int(found.sizes[0]),
        "singletons": int(np.count_nonzero(found.sizes == 1)),
        "modularity": found.modularity,
        "method": METHOD,
    }
    results.publish(store, batch.results / "clusters", {"clusters.parquet": _parquet(clusters)}, details)


def _reads(sample: str, kept: ReadBlock) -> tuple[pa.Table, np.ndarray]:
    sequences = [
        kept.sequence[start:stop].tobytes().decode()
        for start, stop in zip(kept.offsets[:-1], kept.offsets[1:], strict=True)
    ]
    qualities = [
        float(kept.quality[start:stop].mean())
        for start, stop in zip(kept.offsets[:-1], kept.offsets[1:], strict=True)
    ]
    table = pa.table(
        {
            "read_id": pa.array([f"{sample}:{number}" for number in kept.record_numbers], pa.string()),
            "name": pa.array([name.decode() for name in kept.names], pa.string()),
            "sample": pa.array([sample] * len(sequences), pa.string()),
            "sequence": pa.array(sequences, pa.string()),
            "length": pa.array([len(sequence) for sequence in sequences], pa.int32()),
            "mean_quality": pa.array(qualities, pa.float32()),
        }
    )
    return table, _profiles(sequences)


def _profiles(sequences: list[str]) -> np.ndarray:
    """Centred 3-mer frequencies of both strands: float32 (n, 64), rows of length 1."""
    profiles = np.full((len(sequences), 64), 0.02, np.float32)
    digits = np.full(256, -1)
    digits[np.frombuffer(b"ACGT", np.uint8)] = range(4)
    for row, sequence in enumerate(sequences):
        code = digits[np.frombuffer(sequence.encode(), np.uint8)]
        for strand in (code, np.where(code < 0, -1, 3 - code)[::-1]):
            words = np.stack([strand[:-2], strand[1:-1], strand[2:]])
            words = words[:, (words >= 0).all(axis=0)]
            np.add.at(profiles[row], 16 * words[0] + 4 * words[1] + words[2], 1)
    profiles = np.sqrt(profiles / profiles.sum(axis=1, keepdims=True)) - 0.125
    return profiles / np.linalg.norm(profiles, axis=1, keepdims=True)


def _genome(rng: np.random.Generator, gc: float, length: int) -> np.ndarray:
    """Bases of a random genome: a first-order Markov chain of its own, so that genomes differ in style."""
    weights = np.array([1 - gc, gc, gc, 1 - gc]) * rng.gamma(2.5, 1.0, (4, 4))
    steps = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    bases, base = np.empty(length, np.uint8), 0
    for position, draw in enumerate(rng.random(length)):
        base = min(int(np.searchsorted(steps[base], draw)), 3)
        bases[position] = b"ACGT"[base]
    return bases


def _parquet(table: pa.Table, compression: str = "snappy") -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target, compression=compression)
    return target.getvalue()


def _jobs() -> list[dict[str, Any]]:
    times = {
        "embed": ("08:00:00", "08:03:30", 2),
        "stage": ("08:04:00", "08:04:09", 1),
        "similarity": ("08:04:30", "08:05:45", 2),
        "collect": ("08:06:00", "08:06:21", 1),
    }
    return [
        {
            "phase": phase,
            "system": "ray" if phase == "embed" else "slurm",
            "id": str(number),
            "name": f"job-{number}",
            "state": "SUCCEEDED",
            "submitted_at": f"2026-11-20T{start}Z",
            "started_at": f"2026-11-20T{start}Z",
            "ended_at": f"2026-11-20T{end}Z",
            "nodes": nodes,
            "attempt": 1,
        }
        for number, (phase, (start, end, nodes)) in enumerate(times.items(), start=1)
    ]
