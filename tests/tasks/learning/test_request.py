from collections.abc import Callable

import pytest

from tasks import results
from tasks.batches import Batch
from tasks.errors import InvalidBatch, InvalidInput
from tasks.learning.__main__ import _parser
from tasks.learning.request import options, training_jobs
from tasks.object_store import ObjectStore


@pytest.fixture
def publish(store: ObjectStore, s3_root: str) -> Callable[..., dict[str, str]]:
    """Publish the graph of a batch of so many reads; gives the extra of the asset's event."""

    def graph(batch_id: str, reads: int, encoder: str = "registry://kmer-mlp@v1-12345678") -> dict[str, str]:
        details = {"reads": reads, "encoder_uri": encoder}
        results.publish(store, Batch(s3_root, batch_id).results / "graph", {}, details)
        return {"data_uri": s3_root, "batch_id": batch_id}

    return graph


def test_a_person_names_the_batch_whatever_its_size() -> None:
    assert training_jobs("s3://data", "2026-11-20", [], min_new_reads=10, options=["--propose"]) == [
        [
            *("python", "-m", "tasks.learning", "--data-uri", "s3://data", "--propose"),
            *("--batch-id", "2026-11-20"),
        ]
    ]


def test_no_batch_at_all_is_said() -> None:
    with pytest.raises(InvalidInput, match="set the parameter batch_id"):
        training_jobs("s3://data", None, [])


def test_a_batch_id_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidBatch):
        training_jobs("s3://data", "../b", [])


def test_small_batches_wait_until_together_they_are_enough(
    publish: Callable[..., dict[str, str]], s3_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def jobs(*published: dict[str, str]) -> list[list[str]]:
        return [job[5:] for job in training_jobs("s3://other", None, published, min_new_reads=100)]

    first = publish("b1", 40)
    assert jobs(first, first) == []
    assert "40 new reads (b1) wait until there are 100" in capsys.readouterr().out
    assert jobs(publish("b2", 59, "registry://kmer-mlp@v2-87654321")) == []
    assert jobs(publish("b0", 1)) == [["--batch-id", "b0", "b1", "b2"]]


def test_each_encoder_waits_for_its_own(publish: Callable[..., dict[str, str]]) -> None:
    published = [publish("b1", 80), publish("b2", 80, "registry://dna-transformer@v1-12345678")]
    assert training_jobs("s3://other", None, published, min_new_reads=81) == []
    jobs = training_jobs("s3://other", None, published, min_new_reads=80)
    assert [job[-1] for job in jobs] == ["b1", "b2"]


def test_what_was_learnt_from_or_is_gone_waits_no_longer(
    publish: Callable[..., dict[str, str]], store: ObjectStore, s3_root: str
) -> None:
    published = [publish("b1", 50), publish("b2", 50), publish("b3", 50)]
    (job,) = training_jobs("s3://other", None, published, min_new_reads=150)
    assert job[-3:] == ["b1", "b2", "b3"]
    results.publish(store, Batch(s3_root, "b1").results / "retraining", {}, {})
    store.delete(Batch(s3_root, "b2").results / "graph" / "manifest.json")
    (job,) = training_jobs("s3://other", None, published[2:], min_new_reads=50)
    assert job[-2:] == ["--batch-id", "b3"]
    notes = [info.uri.name for info in store.list(Batch(s3_root, "b1").root / "retraining")]
    assert notes == ["b3.json"]


def test_the_parameters_become_options_that_the_command_knows() -> None:
    params = {"workers": 2, "approval": False, "tune": False}
    tuned = {"tune_trials": 3, "tune_budget_usd": 0.5, "instance_type": "g6.xlarge"}
    assert options(params) == ["--workers", "2"]
    for asked in (params, params | {"approval": True, "tune": True} | tuned):
        (command,) = training_jobs("s3://data", "b1", [], options=options(asked))
        chosen = _parser().parse_args(command[3:])
        assert (chosen.batch_id, chosen.workers, chosen.tune) == (["b1"], 2, asked["tune"])
        assert chosen.propose == asked["approval"]
    assert (chosen.trials, chosen.budget_usd, chosen.instance_type) == (3, 0.5, "g6.xlarge")
