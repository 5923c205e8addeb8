"""A tiny paired batch of two simulated genomes, and its published reads and exact k-NN graph."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tasks import results
from tasks.batches import Batch
from tasks.encoders.protocol import load_encoder
from tasks.learning import plans
from tasks.learning.contrastive import TrainingPlan
from tasks.object_store import ObjectStore

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def simulated_reads(templates: int, *, length: int = 90, insert: int = 300, paired: bool = True) -> pa.Table:
    """Columns read_id (``a:…`` and ``b:…`` by genome) and sequence; the two genomes differ in composition."""
    random = np.random.default_rng(7)
    genomes = {
        name: "".join(random.choice(list("ACGT"), 4_000, p=frequencies))
        for name, frequencies in {"a": [0.3, 0.2, 0.2, 0.3], "b": [0.24, 0.3, 0.22, 0.24]}.items()
    }
    ids, sequences = [], []
    for number in range(1, templates + 1):
        name = "ab"[number % 2]
        start = int(random.integers(0, 4_000 - insert))
        fragment = genomes[name][start : start + insert]
        ids.append(f"{name}:{number}/1" if paired else f"{name}:{number}")
        sequences.append(fragment[:length])
        if paired:
            ids.append(f"{name}:{number}/2")
            sequences.append(fragment[-length:].translate(COMPLEMENT)[::-1])
    return pa.table({"read_id": ids, "sequence": sequences})


def neighbours(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and cosines of the ``k`` nearest others of every row, by brute force."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    nearest = np.argsort(-scores, axis=1)[:, :k]
    return nearest, np.take_along_axis(scores, nearest, axis=1)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What is computed here is too small for two threads, which would wait for each other on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def reads_of() -> Callable[..., pa.Table]:
    return simulated_reads


@pytest.fixture
def nearest() -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    return neighbours


@pytest.fixture
def batch(s3_root: str) -> Batch:
    return Batch(s3_root, "2026-11-20")


@pytest.fixture
def store(s3_root: str) -> ObjectStore:
    return ObjectStore()


@pytest.fixture
def publish_batch(store: ObjectStore, batch: Batch) -> Callable[[pa.Table, str], None]:
    """Publish the reads in two files and the graph of an encoder in one, as the batch's earlier steps do."""

    def publish(reads: pa.Table, encoder_uri: str, k: int = 5) -> None:
        encoder = load_encoder(encoder_uri, encoders=batch.encoders, store=store)
        indices, cosines = neighbours(encoder.encode(reads), k)
        graph = pa.table(
            {
                "read_id": reads["read_id"].take(np.repeat(np.arange(len(reads)), k)),
                "neighbour_id": reads["read_id"].take(indices.ravel()),
                "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), len(reads)),
                "cosine": cosines.ravel().astype(np.float32),
            }
        )
        half = len(reads) // 2
        parts = {"a-00000.parquet": reads.slice(0, half), "b-00000.parquet": reads.slice(half)}
        for prefix, tables in (("reads", parts), ("graph", {"part-00000.parquet": graph})):
            bodies = {}
            for name, table in tables.items():
                sink = io.BytesIO()
                pq.write_table(table, sink, compression="zstd")
                bodies[name] = sink.getvalue()
            results.publish(store, batch.results / prefix, bodies, {})

    return publish


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first version that has hardly learnt anything yet."""
    plan = TrainingPlan(steps=2, pairs_per_step=128, learning_rate=2e-3, temperature=0.1, seed=1)
    monkeypatch.setattr(plans, "FIRST_PLANS", {"kmer-mlp": plan})
