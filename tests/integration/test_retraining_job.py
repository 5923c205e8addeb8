"""The retraining as its command, on a Ray cluster whose head takes no work and whose worker has two CPUs."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from ray.cluster_utils import Cluster

from infra.local.layout import PROJECT
from tasks import results
from tasks.batches import Batch
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.registry import Registry
from tasks.encoders.sequences import Sequences
from tasks.object_store import ObjectStore
from tasks.reads.simulate import Library, random_genomes, simulate
from tests.faults.conditions import until

pytestmark = [pytest.mark.integration, pytest.mark.own_cluster, pytest.mark.timeout(600)]

ONCE_SECONDS = 280
READS = 600


@pytest.fixture(scope="module")
def cluster(s3_endpoint: str, ray_token: str) -> Iterator[dict[str, str]]:
    """The environment of a process that is to use it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("RAY_AUTH_TOKEN", ray_token)
        patch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "1")
        patch.setenv("PYTHONPATH", str(PROJECT))
        # Short, because sockets lie there; of its own, because else every ray.init() on the machine joins in.
        sessions = tempfile.mkdtemp(prefix="ray-training-", dir="/tmp")
        patch.setenv("RAY_TMPDIR", sessions)
        patch.setenv("STRANDLOOP_CACHE", f"{sessions}/encoders")
        head = {"num_cpus": 0, "object_store_memory": 128 << 20}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(num_cpus=2, object_store_memory=128 << 20)
        yield {**os.environ, "RAY_ADDRESS": nodes.address}
        nodes.shutdown()
        shutil.rmtree(sessions, ignore_errors=True)  # Ray may still write its last lines


@pytest.fixture
def batch(cluster: dict[str, str], tmp_path: Path) -> Batch:
    """Reads of two genomes, a graph that is right by half, and an encoder with random weights."""
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    store, batch = ObjectStore(), Batch(f"s3://{bucket}", "2026-11-20")
    [reads] = simulate(random_genomes(2, 4_000, seed=1), Library(templates=READS, read_length=100, seed=1))
    sequences = Sequences(reads.sequences.ravel(), 100 * np.arange(READS + 1)).to_arrow()
    ids = pa.array([f"read{number}" for number in range(READS)])
    random = np.random.default_rng(1)
    other = random.permutation(READS)
    graph = {
        "read_id": pa.concat_arrays([ids, ids.take(pa.array(other))]),
        "neighbour_id": pa.concat_arrays([ids.take(pa.array(other)), ids]),
        "cosine": np.full(2 * READS, 0.9, np.float32),
    }
    publish(store, batch, "reads", {"read_id": ids, "sequence": sequences.cast(pa.string())})
    publish(store, batch, "graph", graph)

    torch.manual_seed(1)
    (tmp_path / "encoder").mkdir()
    KmerMlp(dim=16, hidden=16).save(tmp_path / "encoder")
    registry = Registry(store, batch.encoders)
    version = registry.register("kmer-mlp", tmp_path / "encoder", {}, parent=None)
    registry.promote("kmer-mlp", version, expected=None)
    store.put_json(batch.results / "encoder.json", {"uri": f"registry://kmer-mlp@{version}"})
    return batch


def publish(store: ObjectStore, batch: Batch, name: str, columns: dict[str, Any]) -> None:
    body = io.BytesIO()
    pq.write_table(pa.table(columns), body)
    results.publish(store, batch.results / name, {"part-00000.parquet": body.getvalue()}, {})


def start(cluster: dict[str, str], batch: Batch, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "tasks.learning",
        "--data-uri",
        batch.data_uri,
        "--batch-id",
        batch.batch_id,
    ]
    return subprocess.Popen(
        [*command, *options],
        cwd=PROJECT,
        env=cluster,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(job: subprocess.Popen[str]) -> str:
    output, _ = job.communicate(timeout=ONCE_SECONDS)
    assert job.returncode == 0, output
    return output


def told(batch: Batch) -> dict[str, Any]:
    """The result, of which nothing else is left but its manifest."""
    store, prefix = ObjectStore(), batch.results / "retraining"
    results.verify(store, prefix)
    assert {info.uri.name for info in store.list(prefix)} == {"manifest.json", "retraining.json"}
    found: dict[str, Any] = store.get_json(prefix / "retraining.json")
    return found


def weights(batch: Batch) -> str:
    """SHA-256 of the only version that there is beside the first."""
    registry = Registry(ObjectStore(), batch.encoders)
    result = told(batch)
    version = result["encoder_after"].partition("@")[2]
    versions = {
        info.uri.key.split("/")[-2]
        for info in ObjectStore().list(batch.encoders / "kmer-mlp")
        if info.uri.name == "card.json"
    }
    assert versions == {version, result["encoder_before"].partition("@")[2]}
    sha256: str = registry.card("kmer-mlp", version)["files"]["model.safetensors"]
    return sha256


def begun(job: subprocess.Popen[str], worker: int) -> int:
    """The process of a worker, once it says so."""
    assert job.stdout is not None
    lines = []
    for line in job.stdout:
        lines.append(line)
        if found := re.match(rf"worker {worker} has begun: process (\d+)", line):
            return int(found[1])
    raise AssertionError("".join(lines))


def wait_for_checkpoint(batch: Batch) -> None:
    checkpoints = batch.results / "retraining" / "checkpoints"
    until(lambda: list(ObjectStore().list(checkpoints)), seconds=ONCE_SECONDS, what="a checkpoint")


def disturbed(job: subprocess.Popen[str], batch: Batch, *, worker: int) -> str:
    """What the job prints after the worker was killed in the middle of its training."""
    process = begun(job, worker)
    wait_for_checkpoint(batch)
    os.kill(process, signal.SIGKILL)
    return finish(job)


def test_a_worker_that_is_killed_goes_on_and_ends_with_the_same_weights(
    cluster: dict[str, str], batch: Batch
) -> None:
    output = disturbed(start(cluster, batch, "--checkpoint-seconds", "0.2"), batch, worker=0)
    assert "goes on from its checkpoint" in output
    assert re.search(r'(?m)^@progress {"percent": 100.0, ', output)
    training = told(batch)["training"]
    assert 0 < training["resumed_at"] < training["steps"]
    interrupted = weights(batch)

    again = finish(start(cluster, batch))
    assert json.loads(again.splitlines()[-1])["status"] == "unchanged"

    forget(batch)
    finish(start(cluster, batch))
    assert told(batch)["training"]["resumed_at"] == 0
    assert weights(batch) == interrupted


def forget(batch: Batch) -> None:
    """Everything of the retraining."""
    store = ObjectStore()
    registry = Registry(store, batch.encoders)
    before = told(batch)["encoder_before"].partition("@")[2]
    current = registry.current("kmer-mlp")
    if current != before:
        assert registry.promote("kmer-mlp", before, expected=current)
    after = told(batch)["encoder_after"].partition("@")[2]
    for prefix in (batch.results / "retraining", batch.encoders / "kmer-mlp" / after):
        for info in list(store.list(prefix)):
            store.delete(info.uri)


def test_two_workers_train_together_and_one_of_them_is_killed(cluster: dict[str, str], batch: Batch) -> None:
    job = start(cluster, batch, "--workers", "2", "--checkpoint-seconds", "0.2")
    disturbed(job, batch, worker=1)
    training = told(batch)["training"]
    assert training["workers"] == 2
    assert 0 < training["resumed_at"] < training["steps"]
    weights(batch)


def test_a_plan_is_searched_for_within_its_budget(cluster: dict[str, str], batch: Batch) -> None:
    output = finish(start(cluster, batch, "--tune", "--trials", "2"))
    assert "trial 2 of 2: learning rate " in output
    training = told(batch)["training"]
    search = training["search"]
    assert len(search["trials"]) == search["trials_asked"] == 2
    best = max(search["trials"], key=lambda trial: trial["after"])
    assert [training[name] for name in ("learning_rate", "temperature", "steps")] == [
        best[name] for name in ("learning_rate", "temperature", "steps")
    ]
    spent = sum(trial["usd"] for trial in search["trials"])
    assert 0 < spent <= search["usd"] < search["budget_usd"]


def test_what_a_worker_finds_wrong_is_one_sentence(cluster: dict[str, str], batch: Batch) -> None:
    ObjectStore().delete(batch.results / "graph" / "manifest.json")
    job = start(cluster, batch)
    output, _ = job.communicate(timeout=ONCE_SECONDS)
    assert job.returncode == 65, output
    [line] = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "batches/2026-11-20/graph has no finished result to learn from" in line
    # Ray Train's controller has something to say of its own where it was slow to stop.
    assert not [
        line for line in output.splitlines() if "Traceback" in line and "(TrainController " not in line
    ]
