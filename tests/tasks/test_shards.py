from __future__ import annotations

import io
import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hpc_jobs.store import shard_bytes
from tasks.batches import Batch
from tasks.encoders.kmer import KmerMlp
from tasks.errors import InvalidEncoder
from tasks.landing import LandingManifest
from tasks.object_store import ObjectStore
from tasks.parts import Part
from tasks.shards import Commit, EncodingFailed, commit_part, committed, encode_part, read_commit

Land = Callable[..., LandingManifest]
Fastq = Callable[..., bytes]


@pytest.fixture
def encoder() -> KmerMlp:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    return KmerMlp(dim=8, hidden=8)


def commit(store: ObjectStore, batch: Batch, part: Part, encoder: KmerMlp, dtype: str = "float32") -> Commit:
    return commit_part(store, batch, part, encode_part(part, encoder, dtype), dtype=dtype)


def test_a_commit_is_the_shard_the_reads_and_then_the_record(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [fastq(7) + b"@broken\nA\n+\nII\n"]}))
    assert committed(store, batch) == set()
    made = commit(store, batch, part, encoder)
    assert committed(store, batch) == {"a-00000"}
    assert read_commit(store, batch, "a-00000").to_json() == made.to_json()
    assert made.shard and made.shard.rows == 7

    reads = pq.read_table(io.BytesIO(store.get_bytes(batch.results / "reads" / "a-00000.parquet")))
    assert reads.schema.equals(part.reads.schema) and reads.equals(part.reads)
    shard = store.get_bytes(batch.results / "embeddings" / made.shard.name)
    assert shard == shard_bytes(reads["read_id"].combine_chunks(), encoder.encode(reads))

    before = list(store.list(batch.results))
    assert commit(store, batch, part, encoder).to_json() == made.to_json()
    assert list(store.list(batch.results)) == before


def test_a_part_without_kept_reads_is_committed_too(
    land: Land,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [b"@short\nACGT\n+\nIIII\n"]}))
    made = commit(store, batch, part, encoder)
    assert (made.shard, made.reads, made.accounting.kept) == (None, None, 0)
    assert [info.uri.name for info in store.list(batch.results)] == ["a-00000.json"]


def test_what_an_interrupted_run_wrote_stays(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    """Another machine may compute another last bit: the record describes the object that stands."""
    [part] = read_parts(land({"a": [fastq(3)]}))
    other = np.roll(encoder.encode(part.reads), 1, axis=1)
    stands = shard_bytes(part.reads["read_id"].combine_chunks(), other)
    uri = batch.results / "embeddings" / "a-00000.parquet"
    store.put_bytes(uri, stands)
    made = commit(store, batch, part, encoder)
    assert store.get_bytes(uri) == stands
    assert made.shard and made.shard.bytes == len(stands)


def test_the_record_that_stands_is_the_one_that_counts(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [fastq(3)]}))
    stands = commit(store, batch, part, encoder)
    [other] = read_parts(land({"a": [fastq(4)]}))
    assert commit(store, batch, other, encoder).to_json() == stands.to_json()
    assert read_commit(store, batch, "a-00000").to_json() == stands.to_json()


def test_two_runs_at_once_commit_once(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    """Both end with the record that stands, also where their vectors differ."""
    [part] = read_parts(land({"a": [fastq(50)]}))
    torch.manual_seed(2)
    encoders = [encoder, KmerMlp(dim=8, hidden=8)]
    together = threading.Barrier(2)
    commits: list[Commit] = []

    def run(own: KmerMlp) -> None:
        together.wait(timeout=60)
        commits.append(commit(ObjectStore(), batch, part, own))

    runs = [threading.Thread(target=run, args=(own,)) for own in encoders]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    stands = read_commit(store, batch, "a-00000")
    assert [commit.to_json() for commit in commits] == [stands.to_json()] * 2
    reads = part.reads["read_id"].combine_chunks()
    bodies = [shard_bytes(reads, own.encode(part.reads)) for own in encoders]
    assert store.get_bytes(batch.results / "embeddings" / "a-00000.parquet") in bodies


def test_vectors_that_are_no_unit_vectors_are_refused(
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [fastq(3)]}))
    with torch.no_grad():
        encoder.layers[2].bias[0] = float("nan")
    with pytest.raises(
        InvalidEncoder, match=r"not of length 1: 3 of the 3 of a-00000, the first for its row 0"
    ):
        commit(store, batch, part, encoder)
    assert list(store.list(batch.results)) == []


def test_an_encoder_that_raises_is_an_error_that_names_the_part(
    land: Land, fastq: Fastq, read_parts: Callable[..., list[Part]], store: ObjectStore, batch: Batch
) -> None:
    class Broken(KmerMlp):
        def encode(self, reads: pa.Table) -> np.ndarray:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    [part] = read_parts(land({"a": [fastq(3)]}))
    broken = Broken(dim=8, hidden=8)
    broken.uri = "registry://kmer-mlp@v1-00000000"
    with pytest.raises(
        EncodingFailed, match=r"(?s)kmer-mlp@v1.* 3 reads of part a-00000;.*illegal memory access"
    ):
        encode_part(part, broken, "float32")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_shard_has_the_dtype_that_was_asked_for(
    dtype: str,
    land: Land,
    fastq: Fastq,
    read_parts: Callable[..., list[Part]],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    [part] = read_parts(land({"a": [fastq(3)]}))
    made = commit(store, batch, part, encoder, dtype)
    assert made.shard
    stored = store.get_bytes(batch.results / "embeddings" / made.shard.name)
    ids = part.reads["read_id"].combine_chunks()
    assert stored == shard_bytes(ids, encoder.encode(part.reads), dtype)
