"""Phase 1 on a Ray cluster of its own: the output depends on the batch alone, whatever happens on the way."""

from __future__ import annotations

import gzip
import hashlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.data import DataContext

from hpc_jobs.store import verify
from infra.local.layout import PROJECT
from tasks import results
from tasks.batches import Batch, BatchRequest, read_request, record_request
from tasks.embed import embed, main
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.protocol import load_encoder
from tasks.landing import put, read_manifest
from tasks.object_store import ObjectStore
from tasks.parts import Part, parts_of
from tasks.pipeline import pipeline
from tasks.publication import publish
from tasks.reads.simulate import Library, random_genomes, simulate, write_fastq
from tasks.shards import commit_part, encode_part

pytestmark = pytest.mark.integration

CPUS = 4
"""Logical ones: an encoder and a reader on each."""


@pytest.fixture(scope="module")
def cluster(s3_endpoint: str, ray_token: str) -> Iterator[None]:
    workers = {
        "PYTHONPATH": str(PROJECT),
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", ray_token)
        patch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "1")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.init(
            address="local",  # not the cluster of another test that runs at the same time
            num_cpus=CPUS,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=256 << 20,
            runtime_env={"env_vars": workers},
        )
        yield
        ray.shutdown()


@pytest.fixture
def store(s3_root: str) -> ObjectStore:
    return ObjectStore()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A single library of two parts, a pair, and reads of an old machine with a broken record among them."""
    directory = tmp_path_factory.mktemp("reads")
    genomes = random_genomes(2, 4_000, seed=1)
    single = simulate(genomes, Library(templates=20_100, read_length=40, seed=1))
    pair = simulate(genomes, Library(templates=300, read_length=60, paired=True, insert_length=200, seed=2))
    [old] = simulate(genomes, Library(templates=200, read_length=60, seed=3))
    lines = old.to_fastq().split(b"\n")
    lines[3::4] = [bytes(code + 31 for code in line) for line in lines[3::4]]
    text = b"\n".join(lines) + b"@broken\nACGT\n+\nhhh\n"
    old_path = directory / "old.fq.gz"
    old_path.write_bytes(gzip.compress(text, mtime=0))
    return [*write_fastq(directory, "single", single), *write_fastq(directory, "pair", pair), old_path]


@pytest.fixture
def batch(s3_root: str, store: ObjectStore, files: list[Path], tmp_path: Path) -> Batch:
    """The files landed and asked for, with an encoder that has random weights."""
    batch = Batch(s3_root, "2026-11-20")
    put(files, batch)
    torch.manual_seed(1)
    (tmp_path / "encoder").mkdir()
    KmerMlp(dim=16, hidden=16).save(tmp_path / "encoder")
    ask(store, batch, encoder=(tmp_path / "encoder").as_uri())
    return batch


def ask(store: ObjectStore, batch: Batch, **changes: Any) -> None:
    usual = {"top_k": 5, "trim_quality": 10, "min_length": 20, "min_mean_quality": 5.0}
    usual |= {"max_n_fraction": 0.5, "max_quarantine_fraction": 0.01}
    _, sha256 = read_manifest(store, batch)
    record_request(store, batch, BatchRequest(**{**usual, **changes}), sha256)


def checksums(store: ObjectStore, batch: Batch) -> dict[str, str]:
    """Object -> SHA-256 of everything that phase 1 made."""
    return {
        info.uri.key.removeprefix(f"{batch.results.key}/"): hashlib.sha256(
            store.get_bytes(info.uri)
        ).hexdigest()
        for info in store.list(batch.results)
    }


def in_a_plain_loop(store: ObjectStore, batch: Batch) -> None:
    """The same work without Ray."""
    request, (landing, _) = read_request(store, batch), read_manifest(store, batch)
    encoder = load_encoder(request.encoder, encoders=batch.encoders, store=store)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dtype = request.vector_dtype
    commits = [
        commit_part(store, batch, part, encode_part(part, encoder, dtype), dtype=dtype)
        for sample in landing.samples
        for part in parts_of(store, batch, request, sample, skip=set())
        if isinstance(part, Part)
    ]
    torch.set_num_threads(threads)
    publish(store, batch, request, landing, commits, encoder)


def forget(store: ObjectStore, batch: Batch, *names: str) -> None:
    for name in names:
        store.delete(batch.results / name)


def test_the_job_its_restart_and_a_plain_loop_give_the_same_bytes(
    cluster: None, store: ObjectStore, batch: Batch, tmp_path: Path
) -> None:
    summary = embed(batch.data_uri, batch.batch_id)
    assert summary["status"] == "written"
    assert summary["records"] == 20_100 + 2 * 300 + 201
    assert (summary["quarantined"], summary["parts"], summary["parts_resumed"]) == (1, 4, 0)
    assert min(summary["bytes_in"], summary["bytes_out"], *summary["peak_bytes"].values()) > 0
    first = checksums(store, batch)

    manifest = results.find(store, batch.results / "reads")
    assert manifest is not None
    (tmp_path / "store").mkdir()
    for name in ["manifest.json", *(file.name for file in manifest.files)]:
        store.download(batch.results / "embeddings" / name, tmp_path / "store" / name)
    assert verify(tmp_path / "store").rows == summary["rows"] == summary["kept"]

    assert embed(batch.data_uri, batch.batch_id) == {"status": "unchanged", "rows": summary["rows"]}
    assert checksums(store, batch) == first

    forget(
        store,
        batch,
        "embeddings/manifest.json",
        "embeddings/parts/single-00001.json",
        "embeddings/parts/pair-00000.json",
        "embeddings/pair-00000.parquet",
    )
    again = embed(batch.data_uri, batch.batch_id)
    assert (again["status"], again["parts"], again["parts_resumed"]) == ("written", 2, 2)
    assert checksums(store, batch) == first

    forget(store, batch, *(name for name in first if name not in ("request.json", "encoder.json")))
    in_a_plain_loop(store, batch)
    assert checksums(store, batch) == first


def test_two_runs_at_once_end_with_the_same_bytes_once(
    cluster: None, store: ObjectStore, batch: Batch
) -> None:
    answers: list[dict[str, Any]] = []
    runs = [
        threading.Thread(target=lambda: answers.append(embed(batch.data_uri, batch.batch_id)))
        for _ in range(2)
    ]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert len(answers) == 2 and len({answer["rows"] for answer in answers}) == 1
    together = checksums(store, batch)
    forget(store, batch, *(name for name in together if name not in ("request.json", "encoder.json")))
    in_a_plain_loop(store, batch)
    assert checksums(store, batch) == together


def test_reading_and_encoding_are_two_stages(cluster: None, store: ObjectStore, batch: Batch) -> None:
    """Were they one, no file would be parsed while another is encoded."""
    request, (landing, _) = read_request(store, batch), read_manifest(store, batch)
    before = DataContext.get_current().target_max_block_size
    done = pipeline(batch, request, landing, request.encoder, stall_seconds=600).materialize()
    assert DataContext.get_current().target_max_block_size == before
    operators = [line for line in done.stats().splitlines() if line.startswith("Operator ")]
    assert [operator.split()[2].rstrip(":") for operator in operators] == [
        "FromItems",
        "MapBatches(ReadParts)",
        "MapBatches(EncodeAndCommit)",
    ]


def test_damage_is_one_clear_message(
    cluster: None,
    store: ObjectStore,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = batch.landing / "old.fq.gz"
    [key] = [info.uri for info in store.list(batch.landing) if info.uri.name == damaged.name]
    store.put_bytes(key, store.get_bytes(key)[:-1_000])
    monkeypatch.setattr(sys, "argv", ["embed", "--data-uri", batch.data_uri, "--batch-id", batch.batch_id])
    assert main() == 65
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "old.fq.gz has " in line and "were landed: it was cut or replaced" in line
    assert store.head(batch.results / "embeddings" / "manifest.json") is None
