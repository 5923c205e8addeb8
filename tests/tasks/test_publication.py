from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from hpc_jobs.store import StoreManifest, read_ids, verify
from tasks import results
from tasks.batches import Batch, BatchRequest
from tasks.encoders.kmer import KmerMlp
from tasks.errors import InvalidReads
from tasks.landing import LandingManifest
from tasks.object_store import ObjectStore
from tasks.parts import Part
from tasks.publication import publish
from tasks.reads.accounting import UnbalancedAccounting
from tasks.shards import Commit, commit_part, encode_part

Land = Callable[..., LandingManifest]
Fastq = Callable[..., bytes]
BROKEN = b"@broken\nACGT\n+\nIII\n"


@pytest.fixture
def encoder() -> KmerMlp:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    encoder = KmerMlp(dim=8, hidden=8)
    encoder.uri, encoder.revision = "registry://kmer-mlp@v1-00000000", "0" * 64
    return encoder


@pytest.fixture
def commit_all(
    store: ObjectStore, batch: Batch, encoder: KmerMlp, read_parts: Callable[..., list[Part]]
) -> Callable[[LandingManifest, BatchRequest], list[Commit]]:
    def commit(landing: LandingManifest, request: BatchRequest) -> list[Commit]:
        dtype = request.vector_dtype
        return [
            commit_part(store, batch, part, encode_part(part, encoder, dtype), dtype=dtype)
            for part in read_parts(landing, request)
        ]

    return commit


def fetched(store: ObjectStore, batch: Batch, names: Sequence[str], directory: Path) -> StoreManifest:
    """Download the embedding store and verify it as phase 2 does."""
    directory.mkdir()
    for name in ["manifest.json", *names]:
        store.download(batch.results / "embeddings" / name, directory / name)
    return verify(directory)


def test_what_phase_one_publishes(
    land: Land,
    fastq: Fastq,
    commit_all: Callable[..., list[Commit]],
    read_parts: Callable[..., list[Part]],
    request_of: Callable[..., BatchRequest],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
    tmp_path: Path,
) -> None:
    text = fastq(30) + BROKEN
    landing, request = land({"b": [text], "a": [fastq(5), fastq(5)]}), request_of()
    commits = commit_all(landing, request)
    counts = publish(store, batch, request, landing, commits, encoder)
    assert {name: counts[name] for name in ("records", "kept", "quarantined", "rows")} == {
        "records": 41,
        "kept": 40,
        "quarantined": 1,
        "rows": 40,
    }
    assert counts["bytes_in"] == len(text) + 2 * len(fastq(5))

    manifest = fetched(store, batch, ["b-00000.parquet", "a-00000.parquet"], tmp_path / "store")
    assert (manifest.rows, manifest.dim, manifest.encoder_uri) == (40, 8, encoder.uri)
    ids = pa.chunked_array([part.reads["read_id"].combine_chunks() for part in read_parts(landing)])
    assert read_ids(tmp_path / "store", 0, 40).to_pylist() == ids.to_pylist()

    assert results.verify(store, batch.results / "reads").details == {"reads": 40, "vectors": 40}
    quality = results.verify(store, batch.results / "quality")
    assert quality.details == {"records": 41, "kept": 40, "quarantined": 1, "encoder": encoder.uri}
    by_sample = store.get_json(batch.results / "quality" / "quality.json")["samples"]
    assert {name: sample["records"] for name, sample in by_sample.items()} == {"b": 31, "a": 10}
    assert results.verify(store, batch.results / "quarantine").details == {"records": 1}
    [line] = store.get_bytes(batch.results / "quarantine" / "records.jsonl").splitlines()
    assert json.loads(line)["record_number"] == 31


def test_a_restart_in_the_middle_gives_the_same_bytes(
    land: Land,
    fastq: Fastq,
    commit_all: Callable[..., list[Commit]],
    request_of: Callable[..., BatchRequest],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    landing, request = land({"a": [fastq(20_004, length=24)], "b": [fastq(9)]}), request_of()

    def run() -> dict[str, str]:
        publish(store, batch, request, landing, commit_all(landing, request), encoder)
        return {
            info.uri.key: hashlib.sha256(store.get_bytes(info.uri)).hexdigest()
            for info in store.list(batch.results)
        }

    first = run()
    embeddings = batch.results / "embeddings"
    store.delete(embeddings / "manifest.json")
    store.delete(embeddings / "parts" / "a-00001.json")  # written, not committed
    store.delete(embeddings / "parts" / "b-00000.json")  # nothing of it left
    store.delete(embeddings / "b-00000.parquet")
    store.delete(batch.results / "reads" / "b-00000.parquet")
    assert run() == first


def test_too_many_broken_records_fail_the_batch_and_can_be_looked_at(
    land: Land,
    fastq: Fastq,
    commit_all: Callable[..., list[Commit]],
    request_of: Callable[..., BatchRequest],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    landing, request = land({"a": [fastq(9) + BROKEN]}), request_of(max_quarantine_fraction=0.09)
    with pytest.raises(InvalidReads, match=r"1 of 10 records of batch '2026-11-20' cannot be .* the 9\.00%"):
        publish(store, batch, request, landing, commit_all(landing, request), encoder)
    assert results.verify(store, batch.results / "quarantine").details == {"records": 1}
    for prefix in ("embeddings", "reads", "quality"):
        assert store.head(batch.results / prefix / "manifest.json") is None

    just_enough = request_of(max_quarantine_fraction=0.1)
    assert publish(store, batch, just_enough, landing, commit_all(landing, just_enough), encoder)["kept"] == 9


def test_a_batch_without_kept_reads_fails_with_the_reasons(
    land: Land,
    fastq: Fastq,
    commit_all: Callable[..., list[Commit]],
    request_of: Callable[..., BatchRequest],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    landing, request = land({"a": [fastq(12)]}), request_of(min_length=100)
    with pytest.raises(
        InvalidReads,
        match="no read left after the quality filters: 12 records, rejected 12 too_short, 0 cannot",
    ):
        publish(store, batch, request, landing, commit_all(landing, request), encoder)
    assert store.head(batch.results / "embeddings" / "manifest.json") is None


def test_a_part_that_went_missing_is_noticed(
    land: Land,
    fastq: Fastq,
    commit_all: Callable[..., list[Commit]],
    request_of: Callable[..., BatchRequest],
    store: ObjectStore,
    batch: Batch,
    encoder: KmerMlp,
) -> None:
    landing, request = land({"a": [fastq(20_004, length=24)]}, records=20_004), request_of()
    first, _ = commit_all(landing, request)
    with pytest.raises(UnbalancedAccounting, match=r"'a' has 20,004 records, .* account for 20,000"):
        publish(store, batch, request, landing, [first], encoder)
    assert store.head(batch.results / "quarantine" / "manifest.json") is None
