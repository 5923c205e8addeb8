"""The whole batch through ``airflow dags test`` on the local stack, and what it does with bad input.

Every product is checked against an independent computation.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import results
from tasks.batches import Batch
from tasks.cluster_spec import RUN_TAG
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.registry import Registry
from tasks.encoders.sequences import Sequences
from tasks.object_store import ObjectStore, ObjectUri
from tests.faults.conditions import until
from tests.plugins.strandloop.played_pcluster import (
    ACCEPTED,
    NOT_FOUND,
    PlayedPcluster,
    event,
    events,
    played_pcluster,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

TOP_K = 5
SINGLE_READS, PAIRS, SHORT_READS, BROKEN_RECORD = 300, 150, 6, 7


@dataclass(frozen=True)
class DagTest:
    """How an ``airflow dags test`` ended."""

    returncode: int
    output: str


def dags_test(dag_id: str, environment: Mapping[str, str], **conf: object) -> DagTest:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("airflow")), "dags", "test", dag_id, "--conf", json.dumps(conf)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        timeout=800,
    )
    return DagTest(done.returncode, done.stdout)


def reads_of(genome: str, count: int, length: int, *, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [genome[start : start + length] for start in rng.choices(range(len(genome) - length), k=count)]


def fastq(reads: list[str], *, suffix: str = "") -> list[str]:
    """One text record per read, base qualities 40."""
    return [f"@read{n}{suffix}\n{read}\n+\n{'I' * len(read)}\n" for n, read in enumerate(reads, start=1)]


def write_gzip(path: Path, records: list[str]) -> Path:
    with gzip.open(path, "wt") as target:
        target.writelines(records)
    return path


@pytest.fixture(scope="module")
def genomes() -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choices(bases, k=6000)) for bases in ("ACGT", "AACGTT", "ACCGGT")]


@pytest.fixture(scope="module")
def environment(stack: Mapping[str, str]) -> Mapping[str, str]:
    """The stack's environment with Airflow's database ready."""
    airflow = str(Path(sys.executable).with_name("airflow"))
    subprocess.run([airflow, "db", "migrate"], check=True, env={**os.environ, **stack}, timeout=300)
    return stack


@pytest.fixture(scope="module")
def batch(environment: Mapping[str, str]) -> Batch:
    return Batch(environment["STRANDLOOP_DATA_URI"], "end-to-end")


@pytest.fixture(scope="module")
def finished(
    environment: Mapping[str, str], batch: Batch, genomes: list[str], tmp_path_factory: pytest.TempPathFactory
) -> DagTest:
    """A landed batch (a single-end sample with short and broken records, a paired one), run to its end."""
    folder = tmp_path_factory.mktemp("landing")
    single = [read for n, genome in enumerate(genomes) for read in reads_of(genome, 100, 120, seed=n)]
    records = fastq(single + ["ACGTACGT"] * SHORT_READS)
    records.insert(BROKEN_RECORD - 1, "@broken\nACGTACGT\n+\nIIII\n")
    pairs = reads_of(genomes[0], PAIRS, 250, seed=9)
    files = [
        write_gzip(folder / "soil.fq.gz", records),
        write_gzip(folder / "gut_R1.fq.gz", fastq([pair[:100] for pair in pairs], suffix="/1")),
        write_gzip(folder / "gut_R2.fq.gz", fastq([pair[-100:] for pair in pairs], suffix="/2")),
    ]
    land(batch.batch_id, files, environment)
    done = dags_test("genomics_batch", environment, batch_id=batch.batch_id, top_k=TOP_K)
    assert done.returncode == 0, done.output[-20_000:]
    return done


def land(batch_id: str, files: list[Path], environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "tasks.landing", "put"]
    where = ["--data-uri", environment["STRANDLOOP_DATA_URI"], "--batch-id", batch_id]
    subprocess.run(
        [*command, *where, *map(str, files)], check=True, env={**os.environ, **environment}, timeout=120
    )


def land_by_hand(batch: Batch, objects: Mapping[str, bytes], *, named: Mapping[str, bytes]) -> None:
    """Land as another tool would: ``objects`` are there, ``named`` is what the manifest says is there."""
    store = ObjectStore()
    for key, body in objects.items():
        store.put_bytes(batch.landing / key, body)
    samples = [
        {
            "name": key.partition(".")[0],
            "layout": "single",
            "quality_encoding": "phred+33",
            "files": [
                {
                    "key": key,
                    "bytes": len(body),
                    "sha256": hashlib.sha256(body).hexdigest(),
                    "records": None,
                }
            ],
        }
        for key, body in named.items()
    ]
    manifest = {"format": "strandloop-landing", "format_version": 1, "batch_id": batch.batch_id}
    store.put_json(batch.landing / "manifest.json", {**manifest, "samples": samples})


def table_of(prefix: ObjectUri) -> pa.Table:
    """Every Parquet file of a result, each checked against the manifest, as one table."""
    store = ObjectStore()
    manifest = results.verify(store, prefix)
    parts = [results.fetch(store, prefix, file) for file in manifest.files if file.name.endswith(".parquet")]
    return pa.concat_tables([pq.read_table(io.BytesIO(part)) for part in parts])


def vectors_of(batch: Batch) -> tuple[list[str], np.ndarray]:
    """Read ids and float64 vectors straight from the shards, each checked against the store's manifest."""
    store, prefix = ObjectStore(), batch.results / "embeddings"
    manifest = store.get_json(prefix / "manifest.json")
    ids: list[str] = []
    vectors = []
    for shard in manifest["shards"]:
        body = store.get_bytes(prefix / shard["name"])
        assert hashlib.sha256(body).hexdigest() == shard["sha256"]
        table = pq.read_table(io.BytesIO(body))
        ids += table["read_id"].to_pylist()
        raw = b"".join(table["vector"].to_pylist())
        vectors.append(np.frombuffer(raw, np.float32).reshape(-1, manifest["dim"]))
    assert len(ids) == manifest["rows"]
    return ids, np.concatenate(vectors).astype(np.float64)


@pytest.mark.usefixtures("finished")
def test_every_record_is_accounted_for(batch: Batch) -> None:
    store = ObjectStore()
    results.verify(store, batch.results / "quality")
    total = store.get_json(batch.results / "quality" / "quality.json")["total"]
    assert total["records"] == SINGLE_READS + SHORT_READS + 1 + 2 * PAIRS
    assert total["kept"] == SINGLE_READS + 2 * PAIRS
    assert total["rejected"]["too_short"] == SHORT_READS
    assert total["quarantined"] == 1
    lines = store.get_bytes(batch.results / "quarantine" / "records.jsonl").splitlines()
    broken = json.loads(lines[0])
    assert len(lines) == 1
    assert broken["record_number"] == BROKEN_RECORD
    assert "soil" in broken["source"]
    assert "@broken" in broken["raw"]


@pytest.mark.usefixtures("finished")
def test_every_read_kept_has_one_unit_vector(batch: Batch) -> None:
    ids, vectors = vectors_of(batch)
    kept = table_of(batch.results / "reads")["read_id"].to_pylist()
    assert ids == kept
    assert len(set(ids)) == len(ids) == SINGLE_READS + 2 * PAIRS
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("finished")
def test_the_neighbours_are_those_of_brute_force(batch: Batch) -> None:
    ids, vectors = vectors_of(batch)
    graph = table_of(batch.results / "graph")
    row = {read_id: number for number, read_id in enumerate(ids)}
    assert graph.num_rows == len(ids) * TOP_K
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    expected = np.argsort(-cosines.astype(np.float32), axis=1, kind="stable")[:, :TOP_K]
    found = np.full_like(expected, -1)
    for read, neighbour, rank, cosine in zip(
        *(graph[name].to_pylist() for name in ("read_id", "neighbour_id", "rank", "cosine")), strict=True
    ):
        found[row[read], rank - 1] = row[neighbour]
        assert abs(cosine - cosines[row[read], row[neighbour]]) < 1e-6
    rows = np.arange(len(ids))[:, None]
    clear = np.abs(cosines[rows, found] - cosines[rows, expected]) > 1e-6
    assert not clear.any(), "a neighbour is farther than the one that brute force finds at this rank"
    assert (found == expected).mean() > 0.99  # the rest are ties within rounding
    assert all(len(set(neighbours)) == TOP_K for neighbours in found.tolist())


@pytest.mark.usefixtures("finished")
def test_verified_overlaps_are_in_the_sequences(batch: Batch) -> None:
    manifest = results.verify(ObjectStore(), batch.results / "overlaps")
    reads = table_of(batch.results / "reads")
    sequence = dict(zip(reads["read_id"].to_pylist(), reads["sequence"].to_pylist(), strict=True))
    rows = table_of(batch.results / "overlaps").to_pylist()
    assert len(rows) == manifest.details["overlaps"] > 100
    exact = [row for row in rows if row["identity"] == 1]
    assert len(exact) > 0.9 * len(rows)  # the reads have no errors
    for row in exact:
        first = sequence[row["read_id"]][row["first_begin"] : row["first_end"]]
        second = sequence[row["other_id"]][row["second_begin"] : row["second_end"]]
        if row["strand"] < 0:
            second = second.translate(str.maketrans("ACGT", "TGCA"))[::-1]
        assert first == second
        assert len(first) == row["length"] >= 50


@pytest.mark.usefixtures("finished")
def test_clusters_cost_and_report_are_there_with_their_checksums(batch: Batch) -> None:
    store = ObjectStore()
    clusters = table_of(batch.results / "clusters")
    assert sorted(clusters["read_id"].to_pylist()) == sorted(vectors_of(batch)[0])
    for prefix in ("quarantine", "cost", "report"):
        results.verify(store, batch.results / prefix)
    cost = store.get_json(batch.results / "cost" / "cost.json")
    assert {phase["name"] for phase in cost["phases"]} == {"embed", "stage", "similarity", "collect"}
    assert all(phase["seconds"] > 0 for phase in cost["phases"])
    assert next(phase for phase in cost["phases"] if phase["name"] == "similarity")["nodes"] == 2
    page = store.get_bytes(batch.results / "report" / "index.html").decode()
    assert batch.batch_id in page


@pytest.mark.usefixtures("finished")
def test_a_second_run_changes_nothing_and_says_so(batch: Batch, environment: Mapping[str, str]) -> None:
    store = ObjectStore()
    before = list(store.list(batch.results))
    again = dags_test("genomics_batch", environment, batch_id=batch.batch_id, top_k=TOP_K)
    assert again.returncode == 0, again.output[-20_000:]
    assert "is complete: nothing to do, nothing changed" in again.output
    assert list(store.list(batch.results)) == before


@pytest.mark.usefixtures("finished")
def test_another_request_for_the_same_batch_is_refused(batch: Batch, environment: Mapping[str, str]) -> None:
    other = dags_test("genomics_batch", environment, batch_id=batch.batch_id, top_k=TOP_K + 1)
    assert other.returncode != 0
    assert "top_k was 5 and is now 6" in other.output


@pytest.mark.usefixtures("finished")
def test_the_retrained_encoder_is_registered_and_promoted_only_if_better(
    batch: Batch, environment: Mapping[str, str]
) -> None:
    store = ObjectStore()
    done = dags_test("encoder_retraining", environment, batch_id=batch.batch_id)
    assert done.returncode == 0, done.output[-20_000:]
    results.verify(store, batch.results / "retraining")
    verdict = store.get_json(batch.results / "retraining" / "retraining.json")
    current = store.get_json(batch.encoders / "kmer-mlp" / "current.json")["version"]
    expected = verdict["encoder_after"] if verdict["promoted"] else verdict["encoder_before"]
    assert expected.endswith(f"@{current}")
    candidate = verdict["encoder_after"].partition("@")[2]
    assert store.get_json(batch.encoders / "kmer-mlp" / candidate / "card.json")["parent"]


@pytest.mark.usefixtures("finished")
def test_a_person_approves_a_better_encoder_and_the_batch_is_to_be_embedded_anew(
    batch: Batch, environment: Mapping[str, str], tmp_path: Path
) -> None:
    store, registry = ObjectStore(), Registry(ObjectStore(), batch.encoders)
    for info in list(store.list(batch.results / "retraining")):
        store.delete(info.uri)
    KmerMlp.untrained(Sequences.from_arrow(pa.array(["ACGT" * 30] * 9)), seed=1).save(tmp_path)
    knows_nothing = registry.register("kmer-mlp", tmp_path, {}, parent=registry.current("kmer-mlp"))
    assert registry.promote("kmer-mlp", knows_nothing, expected=registry.current("kmer-mlp"))

    with ThreadPoolExecutor(1) as pool:
        conf = {"batch_id": batch.batch_id, "approval": True, "reembed": [batch.batch_id]}
        running = pool.submit(dags_test, "encoder_retraining", environment, **conf)
        asked = until(
            lambda: running.done() or in_airflow(APPROVE, environment),
            seconds=400,
            what="a person is asked",
        )
        done = running.result()
    assert done.returncode == 0, done.output[-20_000:]
    assert asked is not True, done.output[-20_000:]
    verdict = store.get_json(batch.results / "retraining" / "retraining.json")
    assert verdict["encoder_before"].endswith(f"@{knows_nothing}")
    assert not verdict["promoted"] and verdict["encoder_after"] in asked
    assert verdict["encoder_after"].endswith(f"@{registry.current('kmer-mlp')}")
    (conf,) = json.loads(in_airflow(TRIGGERED, environment))
    assert (conf["batch_id"], conf["replace_results"], conf["top_k"]) == (batch.batch_id, True, TOP_K)


APPROVE = """
from airflow._shared.timezones import timezone
from airflow.models.hitl import HITLDetail
from airflow.models.trigger import handle_event_submit
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
with create_session() as session:
    for asked in session.query(HITLDetail).filter(HITLDetail.responded_at.is_(None)):
        if asked.task_instance.state == "awaiting_input":
            asked.chosen_options, asked.responded_at = ["Approve"], timezone.utcnow()
            answer = TriggerEvent(asked.as_resume_event_payload())
            handle_event_submit(answer, task_instance=asked.task_instance, session=session)
            print(asked.subject, asked.body)
"""
TRIGGERED = """
import json
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
with create_session() as session:
    runs = session.query(DagRun).filter(DagRun.dag_id == "genomics_batch", DagRun.state == "queued")
    print(json.dumps([run.conf for run in runs]))
"""


def in_airflow(script: str, environment: Mapping[str, str]) -> str:
    """What a script prints that talks to Airflow's database, as the API server would."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        check=True,
        timeout=120,
    )
    return done.stdout.strip()


def test_a_batch_id_in_bad_form_is_refused(environment: Mapping[str, str]) -> None:
    done = dags_test("genomics_batch", environment, batch_id="../other")
    assert done.returncode != 0
    assert "batch_id" in done.output
    assert "../other" in done.output


def test_no_landing_ends_the_wait_with_the_key_and_what_to_do(environment: Mapping[str, str]) -> None:
    done = dags_test(
        "genomics_batch",
        {**environment, "STRANDLOOP_LANDING_TIMEOUT_SECONDS": "1"},
        batch_id="never-landed",
    )
    assert done.returncode != 0
    assert "landing/never-landed/manifest.json did not appear" in done.output
    assert "python -m tasks.landing put" in done.output


def test_an_incomplete_landing_fails_with_the_whole_list_and_is_left_as_it_was(
    environment: Mapping[str, str], batch: Batch
) -> None:
    incomplete = Batch(batch.data_uri, "incomplete")
    body = gzip.compress(b"@r\nACGT\n+\nIIII\n")
    named = {"missing.fq.gz": body, "other.fq.gz": body}
    land_by_hand(incomplete, {"other.fq.gz": body[:-1] + b"?"}, named=named)
    before = list(ObjectStore().list(incomplete.landing))
    done = dags_test("genomics_batch", environment, batch_id=incomplete.batch_id)
    assert done.returncode != 0
    assert "2 problems" in done.output
    assert "missing.fq.gz" in done.output
    assert "other.fq.gz" in done.output
    assert list(ObjectStore().list(incomplete.landing)) == before
    assert not list(ObjectStore().list(incomplete.results))


def test_an_empty_batch_is_refused(environment: Mapping[str, str], batch: Batch) -> None:
    empty = Batch(batch.data_uri, "empty")
    land_by_hand(empty, {}, named={})
    done = dags_test("genomics_batch", environment, batch_id=empty.batch_id)
    assert done.returncode != 0
    assert "batch 'empty' has 1 problem" in done.output


def test_a_truncated_gzip_fails_the_embedding_with_its_name(
    environment: Mapping[str, str], batch: Batch, genomes: list[str]
) -> None:
    truncated = Batch(batch.data_uri, "truncated")
    body = gzip.compress("".join(fastq(reads_of(genomes[0], 200, 100, seed=3))).encode())[:-2000]
    land_by_hand(truncated, {"cut.fq.gz": body}, named={"cut.fq.gz": body})
    done = dags_test("genomics_batch", environment, batch_id=truncated.batch_id)
    assert done.returncode != 0
    assert "cut.fq.gz" in done.output
    assert "truncated" in done.output
    assert not ObjectStore().head(truncated.results / "embeddings" / "manifest.json")


def goes_when_deleted(pcluster: PlayedPcluster) -> None:
    """Answer that the cluster is gone from the moment that somebody deletes it."""
    until((pcluster.folder / "delete_cluster.held").exists, what="the cluster is deleted", seconds=800)
    earlier = list((pcluster.folder / "describe_cluster").iterdir())
    pcluster.answers("describe_cluster", NOT_FOUND)
    for answer in earlier:
        answer.unlink()
    (pcluster.folder / "delete_cluster.hold").unlink()


def test_a_tiny_batch_on_a_cluster_of_its_own(
    environment: Mapping[str, str], batch: Batch, genomes: list[str], tmp_path: Path
) -> None:
    """ParallelCluster is played; its head node is the stack's. More neighbours than reads: all the others."""
    tiny, store = Batch(batch.data_uri, "tiny"), ObjectStore()
    land(
        tiny.batch_id,
        [write_gzip(tmp_path / "tiny.fq.gz", fastq(reads_of(genomes[1], 4, 100, seed=4)))],
        environment,
    )
    code = ObjectUri.parse(batch.data_uri) / "code"
    for name in ("code.zip", "node-environment.sh"):
        store.put_bytes(code / name, b"what make publish uploads")
    description = {
        "region": "us-east-1",
        "head_node": {"subnet": "subnet-0123456789abcdef0", "ssh_key": "batch", "ssh_from": "10.0.0.0/16"},
        "compute_subnet": "subnet-0123456789abcdef1",
        "code": {
            "archive": str(code / "code.zip"),
            "archive_sha256": "0" * 64,
            "node_environment": str(code / "node-environment.sh"),
        },
        "budget": {"usd": 500, "hours": 6},
    }
    aws = json.loads(environment["AIRFLOW_CONN_AWS_DEFAULT"])
    (tmp_path / "pcluster").mkdir()
    with played_pcluster(tmp_path / "pcluster", environment["AIRFLOW_CONN_SLURM"]) as (pcluster, played):
        aws["extra"]["service_config"] = {"ec2": {"endpoint_url": pcluster.url}}
        pcluster.answers("describe_cluster", NOT_FOUND, pcluster.described("CREATE_COMPLETE"))
        pcluster.answers("get_cluster_stack_events", events(event(1, "c", "CREATE_COMPLETE")))
        for operation in ("create_cluster", "delete_cluster"):
            pcluster.answers(operation, ACCEPTED)
        (pcluster.folder / "delete_cluster.hold").touch()
        with ThreadPoolExecutor(1) as beside:
            gone = beside.submit(goes_when_deleted, pcluster)
            done = dags_test(
                "genomics_batch",
                {
                    **environment,
                    **played,
                    "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws),
                    "AIRFLOW_VAR_STRANDLOOP_CLUSTER": json.dumps(description),
                },
                batch_id=tiny.batch_id,
                top_k=10,
                cluster="parallelcluster",
                cluster_start_delay=False,
                slurm_conn_id="cluster_key",
            )
            (pcluster.folder / "delete_cluster.held").touch()  # ends the wait where nobody got so far
        assert done.returncode == 0, done.output[-20_000:]
        gone.result()
        assert pcluster.changes == ["create_cluster", "delete_cluster"]
    graph = table_of(tiny.results / "graph")
    assert graph.num_rows == 4 * 3
    assert set(graph["rank"].to_pylist()) == {1, 2, 3}
    cost = store.get_json(tiny.results / "cost" / "cost.json")
    assert [line["instance_type"] for line in cost["waiting"]] == ["m7i.xlarge"]


def test_a_cluster_of_a_run_that_is_gone_is_reaped(
    environment: Mapping[str, str], s3_endpoint: str, tmp_path: Path
) -> None:
    """ParallelCluster is played; the other machines are a moto server's, and Slurm is the stack's."""
    aws = json.loads(environment["AIRFLOW_CONN_AWS_DEFAULT"])
    aws["extra"]["service_config"] = {"ec2": {"endpoint_url": s3_endpoint}}
    with played_pcluster(tmp_path, environment["AIRFLOW_CONN_SLURM"]) as (pcluster, played):
        left = pcluster.described("CREATE_COMPLETE", name="old", tags={RUN_TAG: "genomics_batch/gone"})
        pcluster.answers("list_clusters", {"result": {"clusters": [{"clusterName": "old"}]}})
        pcluster.answers("describe_cluster", left)
        pcluster.answers("delete_cluster", ACCEPTED)
        where = {**environment, **played, "AIRFLOW_CONN_AWS_DEFAULT": json.dumps(aws)}
        done = dags_test("cluster_reaper", where, remove=True)
        assert done.returncode == 0, done.output[-20_000:]
        assert "its run genomics_batch/gone is not known to Airflow any more" in done.output
        assert pcluster.changes == ["delete_cluster"]
