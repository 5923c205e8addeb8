import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import chains, results
from tasks.batches import Batch
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.registry import Registry
from tasks.errors import InvalidInput
from tasks.learning import __main__ as command
from tasks.learning.batch_results import read_placements, read_reads
from tasks.learning.first_version import ensure_encoder
from tasks.learning.held_out import split_reads
from tasks.learning.mix import SYNTHETIC_SHARE
from tasks.learning.retrain import retrain
from tasks.object_store import ObjectStore

pytestmark = pytest.mark.usefixtures("small_plan")


def published(store: ObjectStore, batch: Batch) -> dict:
    manifest = results.verify(store, batch.results / "retraining")
    return json.loads(results.fetch(store, batch.results / "retraining", manifest.files[0]))


@pytest.mark.parametrize("paired", [True, False])
def test_a_better_candidate_is_promoted_once(
    paired: bool,
    store: ObjectStore,
    batch: Batch,
    reads_of: Callable[..., pa.Table],
    publish_batch: Callable[..., None],
) -> None:
    reads = reads_of(600, length=100, paired=paired)
    before = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads)
    publish_batch(reads, before)
    registry = Registry(store, batch.encoders)

    summary = retrain(store, [batch], steps=20)
    assert summary["status"] == "written" and summary["promoted"], summary["reason"]
    assert summary["encoder_before"] == before
    after = str(registry.current("kmer-mlp"))
    assert summary["encoder_after"] == f"registry://kmer-mlp@{after}"

    told = published(store, batch)
    assert told["metrics"]["after"]["recall@10"] > told["metrics"]["before"]["recall@10"]
    assert told["metrics"]["difference"]["low"] > 0
    own = "mates" if paired else "windows of one read"
    assert told["pairs"].keys() == {own, "mutual nearest neighbours", "made-up species"}
    card = registry.card("kmer-mlp", after)
    assert f"registry://kmer-mlp@{card['parent']}" == before
    assert card["training"]["learning_rate"] == 1e-3

    assert retrain(store, [batch], steps=20) == summary | {"status": "unchanged"}
    assert published(store, batch) == told


def test_reads_far_apart_on_chains_are_learnt_from(
    store: ObjectStore, batch: Batch, reads_of: Callable[..., pa.Table], publish_batch: Callable[..., None]
) -> None:
    reads = reads_of(250, length=100, paired=False)
    before = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads)
    publish_batch(reads, before)
    ids = reads["read_id"].to_pylist()
    placed = [  # two chains, of every second read, 60 bases apart
        {"read_id": name, "chain": number % 2, "offset": 60 * (number // 2), "strand": 1}
        for number, name in enumerate(ids)
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(placed, chains.SCHEMA), sink)
    results.publish(store, batch.results / "chains", {"chains.parquet": sink.getvalue()}, {})

    retrain(store, [batch], steps=2)
    pairs = published(store, batch)["pairs"]
    assert pairs.keys() == {"windows of one read", "far apart on one chain", "made-up species"}
    training = read_reads(store, batch)
    assert training.equals(reads)
    assert pairs["far apart on one chain"]["available"] == len(split_reads(reads).training)
    assert pairs["far apart on one chain"]["share"] == round(0.75 * (1 - SYNTHETIC_SHARE), 4)
    assert pairs["made-up species"]["share"] == SYNTHETIC_SHARE
    assert 0 < pairs["far apart on one chain"]["purity"] <= 1 == pairs["windows of one read"]["purity"]

    some = read_placements(store, batch, reads["read_id"].slice(3, 2))
    assert (some.row.tolist(), some.chain.tolist(), some.offset.tolist()) == ([0, 1], [1, 0], [60, 120])


def test_without_proof_the_old_encoder_stays(
    store: ObjectStore, batch: Batch, reads_of: Callable[..., pa.Table], publish_batch: Callable[..., None]
) -> None:
    reads = reads_of(60)
    before = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads)
    publish_batch(reads, before)
    summary = retrain(store, [batch], steps=2)
    assert not summary["promoted"]
    assert "held-out templates are too few" in summary["reason"]
    registry = Registry(store, batch.encoders)
    assert f"registry://kmer-mlp@{registry.current('kmer-mlp')}" == before
    registry.card("kmer-mlp", summary["encoder_after"].partition("@")[2])


def test_another_promotion_meanwhile_stands(
    store: ObjectStore,
    batch: Batch,
    reads_of: Callable[..., pa.Table],
    publish_batch: Callable[..., None],
    tmp_path: Path,
) -> None:
    reads = reads_of(600, length=100)
    before = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads)
    publish_batch(reads, before)
    registry = Registry(store, batch.encoders)
    KmerMlp().save(tmp_path)
    theirs = registry.register("kmer-mlp", tmp_path, {}, parent=None)

    def promote_theirs(line: str) -> None:
        if "the candidate is better" in line:
            assert registry.promote("kmer-mlp", theirs, expected=before.partition("@")[2])

    summary = retrain(store, [batch], steps=20, report=promote_theirs)
    assert not summary["promoted"]
    assert "the candidate is better" in summary["reason"]
    assert f"not promoted, because {theirs} took the place of" in summary["reason"]
    assert registry.current("kmer-mlp") == theirs


def test_a_run_that_ended_between_promotion_and_result_is_not_learnt_from_again(
    store: ObjectStore,
    batch: Batch,
    reads_of: Callable[..., pa.Table],
    publish_batch: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = reads_of(600, length=100)
    before = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads)
    publish_batch(reads, before)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(results, "publish", killed)
        retrain(store, [batch], steps=20)
    registry = Registry(store, batch.encoders)
    moves = registry.moves("kmer-mlp")
    assert len(moves) == 2  # the candidate is promoted

    summary = retrain(store, [batch], steps=20)
    assert (summary["encoder_before"], summary["promoted"]) == (before, True)
    assert summary["encoder_after"] == f"registry://kmer-mlp@{moves[-1].version}"
    assert registry.moves("kmer-mlp") == moves
    assert len(registry.versions("kmer-mlp")) == 2


def test_small_batches_are_learnt_from_together_also_where_one_gives_nothing(
    store: ObjectStore, batch: Batch, reads_of: Callable[..., pa.Table], publish_batch: Callable[..., None]
) -> None:
    reads = reads_of(200)
    uri = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads)
    publish_batch(reads, uri)
    nothing = Batch(batch.data_uri, "2026-11-21")
    ensure_encoder(store, nothing, "registry://kmer-mlp", lambda: reads)
    for prefix in ("reads", "graph"):
        manifest = results.find(store, batch.results / prefix)
        assert manifest is not None
        body = results.fetch(store, batch.results / prefix, manifest.files[0])
        sink = io.BytesIO()
        pq.write_table(pq.read_table(io.BytesIO(body)).slice(0, 0), sink)
        results.publish(store, nothing.results / prefix, {"a.parquet": sink.getvalue()}, {})
    with pytest.raises(InvalidInput, match="no reads to train on in batch 2026-11-21"):
        retrain(store, [nothing], steps=2)

    summary = retrain(store, [batch, nothing], steps=2)
    assert summary["batches"] == ["2026-11-20", "2026-11-21"]
    assert results.find(store, nothing.results / "retraining") == results.find(
        store, batch.results / "retraining"
    )
    version = summary["encoder_after"].partition("@")[2]
    assert Registry(store, batch.encoders).card("kmer-mlp", version)["data"]["batches"] == summary["batches"]


def test_a_batch_that_was_not_embedded_is_refused(store: ObjectStore, batch: Batch) -> None:
    with pytest.raises(InvalidInput, match=r"'2026-11-20' has no encoder\.json: it was not embedded"):
        retrain(store, [batch])


def test_the_command_reports_and_repeats(
    store: ObjectStore,
    batch: Batch,
    reads_of: Callable[..., pa.Table],
    publish_batch: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--data-uri", batch.data_uri, "--batch-id", batch.batch_id]
    monkeypatch.setenv("RAY_ADDRESS", "not asked for that")
    assert command.main(arguments) == 65
    assert "error: batch '2026-11-20' has no encoder.json" in capsys.readouterr().err
    monkeypatch.delenv("RAY_ADDRESS")
    assert command.main(arguments) == 65
    assert "error: batch '2026-11-20' has no encoder.json" in capsys.readouterr().err

    reads = reads_of(40)
    publish_batch(reads, ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads))
    assert command.main(arguments) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == "written"
    assert command.main(arguments) == 0
    assert "unchanged" in capsys.readouterr().out
