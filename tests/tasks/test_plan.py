"""Planning: a batch is asked for once; the same request again continues it or finds it complete."""

import hashlib
import json

import pytest

from tasks import results
from tasks.batches import Batch
from tasks.errors import ConflictingResult
from tasks.object_store import ObjectStore
from tasks.plan import plan_batch

PARAMS = {
    "encoder": "registry://kmer-mlp",
    "top_k": 10,
    "trim_quality": 20,
    "min_length": 40,
    "min_mean_quality": 20,
    "max_n_fraction": 0.1,
    "max_quarantine_fraction": 0.01,
    "adapter": "",
    "adapter_mate": "",
    "remove_duplicates": False,
    "window_bases": 2000,
    "window_overlap_bases": 200,
    "vector_dtype": "float32",
    "replace_results": False,
    "nodes": 2,
}


@pytest.fixture
def batch(s3_root: str) -> Batch:
    batch, body = Batch(s3_root, "b1"), b"@r\nACGT\n+\nIIII\n"
    file = {"key": "s.fq", "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "records": 1}
    sample = {"name": "s", "layout": "single", "quality_encoding": "phred+33", "files": [file]}
    manifest = {"format": "strandloop-landing", "format_version": 1, "batch_id": "b1", "samples": [sample]}
    ObjectStore().put_bytes(batch.landing / "s.fq", body)
    ObjectStore().put_json(batch.landing / "manifest.json", manifest)
    return batch


def status(batch: Batch, **changes: object) -> str:
    return plan_batch(batch.data_uri, batch.batch_id, {**PARAMS, **changes})["status"]


def test_new_then_resumed_then_complete(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(batch) == "new"
    assert status(batch) == "resumed"
    results.publish(ObjectStore(), batch.results / "report", {"index.html": b"<html>"}, {})
    assert status(batch) == "complete"
    assert "nothing to do, nothing changed" in capsys.readouterr().out
    assert status(batch, nodes=8) == "complete"  # where it is computed does not change what comes out


def test_other_parameters_are_refused_until_the_results_are_to_be_replaced(batch: Batch) -> None:
    status(batch)
    results.publish(ObjectStore(), batch.results / "report", {"index.html": b"<html>"}, {})
    with pytest.raises(ConflictingResult, match="replace_results"):
        status(batch, top_k=20)
    assert status(batch, top_k=20, replace_results=True) == "new"
    assert [info.uri.name for info in ObjectStore().list(batch.results)] == ["request.json"]
    assert json.loads(ObjectStore().get_bytes(batch.results / "request.json"))["top_k"] == 20
