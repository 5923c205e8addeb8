import pytest

from tasks.errors import InvalidBatch, InvalidInput
from tasks.learning.request import training_jobs


def test_a_person_names_the_batch() -> None:
    assert training_jobs("s3://data", "2026-11-20", []) == [
        ["python", "-m", "tasks.learning", "--data-uri", "s3://data", "--batch-id", "2026-11-20"]
    ]


def test_graphs_published_since_the_last_run_are_learned_from_in_order_each_once() -> None:
    published = [{"data_uri": "s3://data", "batch_id": name, "edges": 3} for name in ("b1", "b2", "b1")]
    assert [job[-1] for job in training_jobs("s3://default", None, published)] == ["b1", "b2"]


def test_no_batch_at_all_is_said() -> None:
    with pytest.raises(InvalidInput, match="set the parameter batch_id"):
        training_jobs("s3://data", None, [])


def test_a_batch_id_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidBatch):
        training_jobs("s3://data", "../b", [])
