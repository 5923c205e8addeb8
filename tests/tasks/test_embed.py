"""The pieces of the job as plain functions and objects; the job itself: tests/integration/test_embed_job.py."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tasks import results
from tasks.batch_encoder import pin_encoder
from tasks.batches import Batch, BatchRequest
from tasks.embed import main
from tasks.encoders.kmer import KmerMlp
from tasks.errors import InvalidReads, StrandloopError
from tasks.landing import LandingManifest
from tasks.learning import plans
from tasks.learning.contrastive import TrainingPlan
from tasks.object_store import ObjectStore
from tasks.pipeline import Shares
from tasks.shards import committed
from tasks.stages import EncodeAndCommit, ReadParts

Land = Callable[..., LandingManifest]
Fastq = Callable[..., bytes]


@pytest.fixture
def encoder_uri(tmp_path: Path) -> str:
    KmerMlp(dim=8, hidden=8).save(tmp_path)
    return tmp_path.as_uri()


def rows_of(landing: LandingManifest) -> pa.Table:
    return pa.table({"sample": [pickle.dumps(sample) for sample in landing.samples]})


def test_readers_and_encoders_pass_rows(
    land: Land,
    fastq: Fastq,
    request_of: Callable[..., BatchRequest],
    store: ObjectStore,
    batch: Batch,
    encoder_uri: str,
) -> None:
    landing = land({"a": [fastq(5)], "b": [fastq(3)]})
    rows = pa.concat_tables(ReadParts(batch, request_of())(rows_of(landing)))
    assert rows["name"].to_pylist() == ["a-00000", "b-00000"]
    done = EncodeAndCommit(batch, request_of(), encoder_uri)(rows).to_pydict()
    assert (done["name"], done["records"]) == (["a-00000", "b-00000"], [5, 3])
    assert done["failure"] == [None, None]
    assert [json.loads(text)["shard"]["rows"] for text in done["commit"]] == [5, 3]
    assert min(done["read_seconds"] + done["encode_seconds"] + done["store_seconds"]) > 0
    assert committed(store, batch) == {"a-00000", "b-00000"}


def test_a_restart_sends_only_the_names_of_committed_parts(
    land: Land, fastq: Fastq, request_of: Callable[..., BatchRequest], batch: Batch, encoder_uri: str
) -> None:
    rows, encode = rows_of(land({"a": [fastq(5)]})), EncodeAndCommit(batch, request_of(), encoder_uri)
    encode(pa.concat_tables(ReadParts(batch, request_of())(rows)))
    [again] = ReadParts(batch, request_of())(rows)
    assert again["reads"].to_pylist() == [None]
    [done] = encode(again).to_pylist()
    assert (done["name"], done["records"], done["commit"], done["failure"]) == ("a-00000", 5, None, None)


def test_damage_travels_as_a_row_behind_the_good_parts(
    land: Land, fastq: Fastq, request_of: Callable[..., BatchRequest], batch: Batch, encoder_uri: str
) -> None:
    rows = pa.concat_tables(ReadParts(batch, request_of())(rows_of(land({"a": [fastq(5)]}, records=6))))
    done = EncodeAndCommit(batch, request_of(), encoder_uri)(rows)
    good, failure = done["failure"].to_pylist()
    assert good is None and done["commit"][0].is_valid
    with pytest.raises(InvalidReads, match="holds 5 records, but 6 were landed"):
        raise pickle.loads(failure)


def test_an_encoder_that_cannot_be_loaded_is_told_as_a_row(
    land: Land, fastq: Fastq, request_of: Callable[..., BatchRequest], batch: Batch, tmp_path: Path
) -> None:
    rows = pa.concat_tables(ReadParts(batch, request_of())(rows_of(land({"a": [fastq(5)]}))))
    [done] = EncodeAndCommit(batch, request_of(), (tmp_path / "none").as_uri())(rows).to_pylist()
    with pytest.raises(StrandloopError, match="none"):
        raise pickle.loads(done["failure"])


@pytest.mark.parametrize(
    ("nodes", "uri", "gpus", "threads", "encoders"),
    [
        ([{"CPU": 1}], "registry://kmer-mlp", 0, 1, [1]),
        ([{"CPU": 2}], "registry://kmer-mlp", 0, 2, [1]),
        ([{"CPU": 5}], "registry://kmer-mlp", 0, 1, [5]),
        ([{"CPU": 6}], "registry://kmer-mlp", 0, 3, [2]),
        ([{"CPU": 0}, {"CPU": 8}, {"CPU": 16}], "registry://kmer-mlp", 0, 4, [0, 2, 4]),
        ([{"CPU": 8, "GPU": 2}], "registry://kmer-mlp", 1, 1, [2]),
        ([{"CPU": 8, "GPU": 2}], "sketch://256", 0, 4, [2]),
        ([{"CPU": 0}], "registry://kmer-mlp", 0, 1, [0]),
        ([], "registry://kmer-mlp", 0, 1, []),
    ],
)
def test_encoders_share_the_nodes(
    nodes: list[dict[str, float]], uri: str, gpus: int, threads: int, encoders: list[int]
) -> None:
    shares = Shares.on(nodes, uri)
    assert (shares.encoder_gpus, shares.encoder_threads) == (gpus, threads)
    assert [shares.encoders_on(node) for node in nodes] == encoders
    assert shares.reader_cpus != shares.encoder_cpus  # equal stages would be fused
    for node, count in zip(nodes, encoders, strict=True):
        assert count * (shares.encoder_cpus + shares.reader_cpus) <= node["CPU"]


def test_a_batch_that_is_not_usable_trains_nothing(
    land: Land, fastq: Fastq, request_of: Callable[..., BatchRequest], store: ObjectStore, batch: Batch
) -> None:
    landing = land({"a": [fastq(3) + b"@broken\nACGT\n+\nIII\n"], "empty": [b""]})
    with pytest.raises(InvalidReads, match="1 of 4 records"):
        pin_encoder(batch.data_uri, batch.batch_id, request_of(), landing)
    with pytest.raises(InvalidReads, match="rejected 3 too_short, 1 cannot be parsed"):
        request = request_of(min_length=500, max_quarantine_fraction=1)
        pin_encoder(batch.data_uri, batch.batch_id, request, landing)
    assert results.verify(store, batch.results / "quarantine").details == {"records": 1}
    assert list(store.list(batch.encoders)) == []


def test_the_first_encoder_learns_from_all_samples(
    land: Land,
    fastq: Fastq,
    request_of: Callable[..., BatchRequest],
    store: ObjectStore,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = TrainingPlan(steps=2, pairs_per_step=32, learning_rate=1e-3, temperature=0.1, seed=1)
    monkeypatch.setattr(plans, "FIRST_PLANS", {"kmer-mlp": plan})
    monkeypatch.setattr("tasks.batch_encoder.TRAINING_READS", 200)
    landing = land({"a": [fastq(150)], "b": [fastq(150, seed=2), fastq(150, seed=3)]})
    uri = pin_encoder(batch.data_uri, batch.batch_id, request_of(), landing)
    version = uri.partition("@")[2]
    card = store.get_json(batch.encoders / "kmer-mlp" / version / "card.json")
    assert card["data"]["reads"] == 200


def run_main(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> int:
    command = ["embed", "--data-uri", batch.data_uri, "--batch-id", batch.batch_id]
    monkeypatch.setattr(sys, "argv", command)
    return main()


def test_a_batch_that_nobody_asked_for(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(batch, monkeypatch) == 65
    assert capsys.readouterr().err.startswith(
        "error: batch '2026-11-20' was not requested: there is no s3://"
    )


def test_a_finished_batch_is_left_alone(
    store: ObjectStore, batch: Batch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put_json(batch.results / "embeddings" / "manifest.json", {"rows": 3})
    assert run_main(batch, monkeypatch) == 0
    assert "batch 2026-11-20 is embedded already: unchanged" in capsys.readouterr().out
