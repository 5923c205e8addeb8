import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tasks.batches import Batch
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.protocol import load_encoder
from tasks.encoders.registry import Registry
from tasks.errors import InvalidEncoder, InvalidInput
from tasks.learning import plans
from tasks.learning.contrastive import TrainingPlan
from tasks.learning.first_version import ensure_encoder, train_first
from tasks.object_store import ObjectStore


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = TrainingPlan(steps=3, pairs_per_step=32, learning_rate=1e-3, temperature=0.1, seed=1)
    monkeypatch.setattr(
        plans, "FIRST_PLANS", {"kmer-mlp": plan, "dna-transformer": replace(plan, masked_steps=2)}
    )


def no_reads() -> pa.Table:
    raise AssertionError("an encoder is there, nothing has to be trained")


@pytest.mark.parametrize("name", ["kmer-mlp", "dna-transformer", "dna-transformer-bpe"])
def test_the_first_batch_trains_the_first_version(
    name: str, store: ObjectStore, batch: Batch, reads_of: Callable[..., pa.Table]
) -> None:
    uri = ensure_encoder(store, batch, f"registry://{name}", lambda: reads_of(300))
    version = Registry(store, batch.encoders).current(name)
    assert uri == f"registry://{name}@{version}"
    assert store.get_json(batch.results / "encoder.json") == {"requested": f"registry://{name}", "uri": uri}
    assert Registry(store, batch.encoders).uses(name) == {batch.batch_id: version}
    card = Registry(store, batch.encoders).card(name, str(version))
    assert card["data"]["batches"] == [batch.batch_id]
    assert card["data"]["reads"] == 600
    windows = card["data"]["pairs"]["windows of one read"]
    assert windows == {"available": card["data"]["training_reads"], "share": 1.0, "purity": None}
    assert card["training"]["steps"] == 3
    masked = card["training"].get("masked_words", {"steps": 0})
    assert masked["steps"] == (0 if name == "kmer-mlp" else 2)
    assert card["metrics"].keys() == {"recall@1", "recall@10"}
    encoder = load_encoder(uri, encoders=batch.encoders, store=store)
    assert encoder.encode(reads_of(3)).shape == (6, encoder.dim)


def test_the_next_batch_takes_what_is_promoted_and_keeps_it(
    store: ObjectStore, batch: Batch, reads_of: Callable[..., pa.Table], tmp_path: Path
) -> None:
    first = ensure_encoder(store, batch, "registry://kmer-mlp", lambda: reads_of(50))
    tomorrow = Batch(batch.data_uri, "2026-11-21")
    assert ensure_encoder(store, tomorrow, "registry://kmer-mlp", no_reads) == first

    registry = Registry(store, batch.encoders)
    version = first.partition("@")[2]
    KmerMlp().save(tmp_path)
    promoted = registry.register("kmer-mlp", tmp_path, {}, parent=version)
    assert registry.promote("kmer-mlp", promoted, expected=version)
    assert ensure_encoder(store, tomorrow, "registry://kmer-mlp", no_reads) == first


def test_of_several_runs_all_get_one_encoder(
    store: ObjectStore, batch: Batch, reads_of: Callable[..., pa.Table]
) -> None:
    together = threading.Barrier(2)
    answers: list[str] = []

    def run(templates: int) -> None:
        def reads() -> pa.Table:
            together.wait(timeout=60)
            return reads_of(templates)

        answers.append(ensure_encoder(store, batch, "registry://kmer-mlp", reads))

    runs = [threading.Thread(target=run, args=(templates,)) for templates in (40, 50)]
    for thread in runs:
        thread.start()
    for thread in runs:
        thread.join()
    assert len(answers) == 2 and len(set(answers)) == 1


def test_files_are_an_encoder_too(store: ObjectStore, batch: Batch, tmp_path: Path) -> None:
    KmerMlp().save(tmp_path)
    assert ensure_encoder(store, batch, tmp_path.as_uri(), no_reads) == tmp_path.as_uri()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "registry://no-such",
            "none of that name can be trained here; choose one of dna-transformer, dna-transformer-bpe, ",
        ),
        ("registry://kmer-mlp@v3-00000000", "there is no encoder"),
        ("s3://bucket/encoder", "is not the address of an encoder"),
        ("file:///nowhere", "holds no encoder"),
    ],
)
def test_an_encoder_that_cannot_be_is_not_pinned(
    uri: str, message: str, store: ObjectStore, batch: Batch, reads_of: Callable[..., pa.Table]
) -> None:
    with pytest.raises(InvalidEncoder, match=message):
        ensure_encoder(store, batch, uri, lambda: reads_of(5))
    assert store.head(batch.results / "encoder.json") is None


def test_nothing_is_learnt_from_nothing(tmp_path: Path, reads_of: Callable[..., pa.Table]) -> None:
    with pytest.raises(InvalidInput, match="'today' has no reads to train the first version of 'kmer-mlp'"):
        train_first("kmer-mlp", reads_of(1).slice(0, 0), tmp_path, batch_id="today")
