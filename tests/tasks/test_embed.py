"""The pieces of the job as plain functions and objects; the job itself: tests/integration/test_embed_job.py."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tasks import results
from tasks.batches import Batch, BatchRequest
from tasks.embed import EncodeAndCommit, ReadParts, main, pin_encoder
from tasks.encoders.kmer import KmerMlp
from tasks.errors import InvalidReads
from tasks.landing import LandingManifest
from tasks.learning import plans
from tasks.learning.contrastive import TrainingPlan
from tasks.object_store import ObjectStore
from tasks.shards import committed

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
    rows = pa.concat_tables(ReadParts(batch, request_of())(rows_of(land({"a": [fastq(5)], "b": [fastq(3)]}))))
    assert rows["name"].to_pylist() == ["a-00000", "b-00000"]
    done = EncodeAndCommit(batch, encoder_uri)(rows)
    assert done.to_pydict() == {"name": ["a-00000", "b-00000"], "kept": [5, 3], "failure": [None, None]}
    assert committed(store, batch) == {"a-00000", "b-00000"}


def test_a_restart_sends_only_the_names_of_committed_parts(
    land: Land, fastq: Fastq, request_of: Callable[..., BatchRequest], batch: Batch, encoder_uri: str
) -> None:
    rows, encode = rows_of(land({"a": [fastq(5)]})), EncodeAndCommit(batch, encoder_uri)
    encode(pa.concat_tables(ReadParts(batch, request_of())(rows)))
    [again] = ReadParts(batch, request_of())(rows)
    assert again["part"].to_pylist() == [None]
    assert encode(again).to_pydict() == {"name": ["a-00000"], "kept": [None], "failure": [None]}


def test_damage_travels_as_a_row_behind_the_good_parts(
    land: Land, fastq: Fastq, request_of: Callable[..., BatchRequest], batch: Batch, encoder_uri: str
) -> None:
    rows = pa.concat_tables(ReadParts(batch, request_of())(rows_of(land({"a": [fastq(5)]}, records=6))))
    done = EncodeAndCommit(batch, encoder_uri)(rows)
    assert done["kept"].to_pylist() == [5, None]
    good, failure = done["failure"].to_pylist()
    assert good is None
    with pytest.raises(InvalidReads, match="holds 5 records, but 6 were landed"):
        raise pickle.loads(failure)


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
    monkeypatch.setattr("tasks.embed.TRAINING_READS", 200)
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
