"""Phase 1 while things break: the same bytes as without faults, or one clear failure with nothing published."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from infra.local.layout import PROJECT
from tasks import pipeline
from tasks.batches import Batch, BatchRequest, record_request
from tasks.embed import embed
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.registry import Registry
from tasks.errors import StorageError
from tasks.landing import put, read_manifest
from tasks.object_store import ObjectStore
from tasks.pipeline import PipelineStalled
from tasks.reads.simulate import Library, random_genomes, simulate, write_fastq
from tasks.shards import EncodingFailed
from tasks.stages import EncodeAndCommit
from tests.faults.conditions import until
from tests.integration.failing_s3 import FailingS3

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

SAMPLES = 3
ONCE_SECONDS = 240


class BreakingEncoder(EncodeAndCommit):
    """The real stage, except for what the file ``fault`` below ``directory`` asks for at the first sample.

    ``wait``: tell pid and node, then encode nothing until killed, the first time; ``hang``: go on when there is
    a file ``released``;
    ``join``, at every sample: tell the node, and go on when there is a file ``joined``;
    ``raise``: what a library raises; ``disk``: the process cannot write files of more than 4 KiB.
    """

    directory: Path

    def __init__(self, *arguments: Any) -> None:
        self.fault = (self.directory / "fault").read_text()
        if self.fault == "disk":
            os.environ["STRANDLOOP_CACHE"] = str(self.directory / f"cache-{uuid.uuid4().hex}")
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 10, resource.RLIM_INFINITY))
        super().__init__(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if self.failure is None:
            self.healthy = self.encoder.encode
            setattr(self.encoder, "encode", self.encode)  # noqa: B010

    def encode(self, reads: pa.Table) -> np.ndarray:
        if self.fault == "join":
            (self.directory / f"node-{ray.get_runtime_context().get_node_id()}").touch()
            until((self.directory / "joined").exists, seconds=ONCE_SECONDS, what="a node joins")
        if reads["sample"][0].as_py() == "s0":
            if self.fault == "raise":
                raise RuntimeError("an illegal memory access was encountered")
            if self.fault == "hang":
                until((self.directory / "released").exists, seconds=ONCE_SECONDS, what="the test is over")
            if self.fault == "wait" and self._is_first():
                threading.Event().wait()
        return self.healthy(reads)

    def _is_first(self) -> bool:
        told = {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id()}
        try:
            os.link(self._written(told), self.directory / "victim.json")
        except FileExistsError:
            return False
        return True

    def _written(self, told: dict[str, Any]) -> Path:
        path = self.directory / f"{uuid.uuid4().hex}.json"
        path.write_text(json.dumps(told))
        return path


@pytest.fixture(scope="module")
def s3(s3_endpoint: str) -> Iterator[FailingS3]:
    proxy = FailingS3(s3_endpoint)
    with proxy.serve() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield proxy


@pytest.fixture(scope="module")
def cluster(s3: FailingS3, ray_token: str) -> Iterator[Cluster]:
    """A head that has no CPU, and two workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", ray_token)
        patch.setenv("RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE", "1")
        patch.setenv("RAY_health_check_period_ms", "500")  # a lost node is noticed soon
        patch.setenv("RAY_health_check_failure_threshold", "4")
        patch.setenv("PYTHONPATH", str(PROJECT))
        patch.delenv("RAY_ADDRESS", raising=False)
        # Short, because sockets lie there; of its own, because else every ray.init() on the machine joins in.
        sessions = tempfile.mkdtemp(prefix="ray-faults-", dir="/tmp")
        patch.setenv("RAY_TMPDIR", sessions)
        head = {"num_cpus": 0, "object_store_memory": 128 << 20}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=128 << 20)
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        ray.init(
            address=nodes.address,
            log_to_driver=False,
            runtime_env={"env_vars": {**environment, "PYTHONPATH": str(PROJECT)}},
        )
        yield nodes
        ray.shutdown()
        nodes.shutdown()
        shutil.rmtree(sessions)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """Files of several samples, and the directory of an encoder that has random weights."""
    directory = tmp_path_factory.mktemp("inputs")
    genomes = random_genomes(2, 4_000, seed=1)
    files = []
    for number in range(SAMPLES):
        library = Library(templates=700, read_length=60, seed=number)
        files += write_fastq(directory, f"s{number}", simulate(genomes, library))
    torch.manual_seed(1)
    (directory / "encoder").mkdir()
    KmerMlp(dim=16, hidden=16).save(directory / "encoder")
    return files, directory / "encoder"


def landed(inputs: tuple[list[Path], Path], *, register: bool = False) -> Batch:
    """The batch in a bucket of its own, asked for."""
    files, encoder = inputs
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    store, batch = ObjectStore(), Batch(f"s3://{bucket}", "2026-11-20")
    put(files, batch, tell=lambda line: None)
    uri = encoder.as_uri()
    if register:
        version = Registry(store, batch.encoders).register("kmer-mlp", encoder, {}, parent=None)
        uri = f"registry://kmer-mlp@{version}"
    request = BatchRequest(
        encoder=uri, top_k=5, trim_quality=10, min_length=20, min_mean_quality=5.0, max_n_fraction=0.5,
        max_quarantine_fraction=0.01,
    )  # fmt: skip
    record_request(store, batch, request, read_manifest(store, batch)[1])
    return batch


def checksums(batch: Batch) -> dict[str, str]:
    """Object -> SHA-256 of everything that phase 1 made."""
    store = ObjectStore()
    return {
        info.uri.key: hashlib.sha256(store.get_bytes(info.uri)).hexdigest()
        for info in store.list(batch.results)
    }


@pytest.fixture(scope="module")
def expected(cluster: Cluster, inputs: tuple[list[Path], Path]) -> dict[str, str]:
    """What comes out where nothing breaks."""
    batch = landed(inputs)
    embed(batch.data_uri, batch.batch_id)
    return checksums(batch)


@pytest.fixture
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Ask for one of the faults of :class:`BreakingEncoder`; gives its directory."""

    def ask(name: str) -> Path:
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        (tmp_path / "fault").write_text(name)
        monkeypatch.setattr(BreakingEncoder, "directory", tmp_path, raising=False)
        monkeypatch.setattr(pipeline, "EncodeAndCommit", BreakingEncoder)
        return tmp_path

    return ask


def victim(directory: Path) -> dict[str, Any]:
    """Pid and node of the process that encodes the first sample, once it does."""
    path = directory / "victim.json"
    until(path.exists, seconds=ONCE_SECONDS, what="the first sample is encoded")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def embedded_while(batch: Batch, strike: Callable[[], None]) -> dict[str, Any]:
    """The job's summary; ``strike`` runs in the middle of it."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            strike()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    summary = embed(batch.data_uri, batch.batch_id, stall_seconds=ONCE_SECONDS)
    thread.join()
    assert not problems
    return summary


def assert_nothing_is_published(batch: Batch) -> None:
    store = ObjectStore()
    for prefix in ("embeddings", "reads", "quality"):
        assert store.head(batch.results / prefix / "manifest.json") is None
    assert store.get_json(batch.results / "progress.json")["status"] == "failed"


def test_s3_that_refuses_and_cuts(
    cluster: Cluster, s3: FailingS3, inputs: tuple[list[Path], Path], expected: dict[str, str]
) -> None:
    batch = landed(inputs)
    with s3.failing():
        summary = embed(batch.data_uri, batch.batch_id)
    assert min(s3.counts.values()) > 0, s3.counts
    assert summary["kept"] == summary["rows"] == SAMPLES * 700
    assert checksums(batch) == expected


def test_an_encoder_process_is_killed(
    cluster: Cluster,
    inputs: tuple[list[Path], Path],
    expected: dict[str, str],
    fault: Callable[[str], Path],
) -> None:
    batch, directory = landed(inputs), fault("wait")
    embedded_while(batch, lambda: os.kill(victim(directory)["pid"], signal.SIGKILL))
    assert checksums(batch) == expected


def test_an_encoder_that_raises_names_the_part_and_a_retry_goes_on(
    cluster: Cluster,
    inputs: tuple[list[Path], Path],
    expected: dict[str, str],
    fault: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = landed(inputs)
    fault("raise")
    with pytest.raises(EncodingFailed, match=r"(?s)700 reads of part s0-00000;.*illegal memory access"):
        embed(batch.data_uri, batch.batch_id)
    assert_nothing_is_published(batch)
    monkeypatch.setattr(pipeline, "EncodeAndCommit", EncodeAndCommit)
    embed(batch.data_uri, batch.batch_id)
    assert checksums(batch) == expected


def test_a_full_disk_on_a_worker(
    cluster: Cluster, inputs: tuple[list[Path], Path], fault: Callable[[str], Path]
) -> None:
    """The system refuses to write the encoder's files: what a full disk looks like to the process."""
    batch = landed(inputs, register=True)
    fault("disk")
    with pytest.raises(StorageError, match=r"registry://kmer-mlp@v1-.* on a worker: .*File too large"):
        embed(batch.data_uri, batch.batch_id)
    assert_nothing_is_published(batch)


def test_a_job_that_stands_still_ends_and_says_who_did_what(
    cluster: Cluster, inputs: tuple[list[Path], Path], fault: Callable[[str], Path]
) -> None:
    batch = landed(inputs)
    directory = fault("hang")
    try:
        with pytest.raises(PipelineStalled) as caught:
            embed(batch.data_uri, batch.batch_id, stall_seconds=10)
        for words in ("BreakingEncoder", "active task", "Cluster: 3 nodes alive", "CPUs free", "actors: "):
            assert words in str(caught.value)
        assert_nothing_is_published(batch)
    finally:
        # A job's end would end the actor too; here the next test is the same job, and needs its CPU.
        (directory / "released").touch()


def test_a_node_that_joins_later_is_used(
    cluster: Cluster, inputs: tuple[list[Path], Path], fault: Callable[[str], Path], tmp_path: Path
) -> None:
    """More parts than two encoders take at once; both wait until a third one, on the new node, encodes too."""
    files, encoder = inputs
    (tmp_path / "more").mkdir()
    more = [shutil.copy(files[0], tmp_path / "more" / f"more{number}.fq.gz") for number in range(12)]
    batch, directory = landed(([*files, *more], encoder)), fault("join")

    def nodes() -> int:
        return len(list(directory.glob("node-*")))

    with ThreadPoolExecutor(1) as pool:  # Ray starts nodes in the main thread only
        embedding = pool.submit(embed, batch.data_uri, batch.batch_id)
        try:
            until(lambda: nodes() == 2, seconds=ONCE_SECONDS, what="both nodes encode")
            cluster.add_node(num_cpus=1, object_store_memory=128 << 20)
            until(lambda: nodes() == 3, seconds=ONCE_SECONDS, what="the new node encodes")
        finally:
            (directory / "joined").touch()  # else a failure would wait for the embedding for ever
        summary = embedding.result(timeout=ONCE_SECONDS)
    assert summary["kept"] == summary["rows"] == (SAMPLES + 12) * 700


def test_a_node_is_lost(
    cluster: Cluster,
    inputs: tuple[list[Path], Path],
    expected: dict[str, str],
    fault: Callable[[str], Path],
) -> None:
    """Last, because it is not given back."""
    batch, directory = landed(inputs), fault("wait")

    def remove() -> None:
        lost = victim(directory)["node"]
        [node] = [node for node in cluster.worker_nodes if node.node_id == lost]
        cluster.remove_node(node, allow_graceful=False)

    embedded_while(batch, remove)
    assert checksums(batch) == expected
