from dataclasses import replace

import pytest

from tasks.batches import Batch, BatchRequest, read_request, record_request
from tasks.errors import ConflictingResult, InvalidBatch, InvalidInput
from tasks.object_store import ObjectStore

REQUEST = BatchRequest(
    encoder="registry://kmer-mlp",
    top_k=10,
    trim_quality=20,
    min_length=40,
    min_mean_quality=20,
    max_n_fraction=0.1,
    max_quarantine_fraction=0.01,
)


@pytest.mark.parametrize("batch_id", ["", "../up", "a/b", "with space", ".hidden", "x" * 65, "ä"])
def test_a_batch_id_that_cannot_be_part_of_a_key_is_refused(batch_id: str) -> None:
    with pytest.raises(InvalidBatch, match="64 letters"):
        Batch("s3://bucket", batch_id)


def test_addresses() -> None:
    batch = Batch("s3://bucket/team/", "2026-11-20")
    assert str(batch.landing) == "s3://bucket/team/landing/2026-11-20"
    assert str(batch.results / "graph") == "s3://bucket/team/batches/2026-11-20/graph"
    assert str(batch.encoders) == "s3://bucket/team/encoders"


def test_a_request_is_written_once_and_read_back(s3_root: str) -> None:
    store, batch = ObjectStore(), Batch(s3_root, "b1")
    assert record_request(store, batch, REQUEST, "abc") is True
    assert record_request(store, batch, REQUEST, "abc") is False
    assert read_request(store, batch) == REQUEST


def test_another_request_for_the_same_batch_names_what_changed(s3_root: str) -> None:
    store, batch = ObjectStore(), Batch(s3_root, "b1")
    record_request(store, batch, REQUEST, "abc")
    with pytest.raises(ConflictingResult, match="landing_sha256 was 'abc' and is now 'def'"):
        record_request(store, batch, REQUEST, "def")


def test_parameters_out_of_range_are_named_all_at_once() -> None:
    with pytest.raises(InvalidInput, match=r"top_k is 0.*max_n_fraction is 2"):
        BatchRequest(**{**REQUEST.__dict__, "top_k": 0, "max_n_fraction": 2})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"window_bases": 100, "window_overlap_bases": 100},
            "window_overlap_bases is 100, but must be 0 to 99",
        ),
        ({"adapter": "AGATX"}, "adapter is 'AGATX', but must be bases"),
        ({"vector_dtype": "float64"}, "must be one of: float32, float16, int8"),
    ],
)
def test_choices_that_cannot_be_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        BatchRequest(**{**REQUEST.__dict__, **changes})


def test_reads_that_are_not_cut_need_no_overlap() -> None:
    assert replace(REQUEST, window_bases=0, window_overlap_bases=200).window_bases == 0
