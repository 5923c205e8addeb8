from collections.abc import Callable

import pytest

from tasks.batches import Batch, BatchRequest, record_request
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore
from tasks.reembedding import reembedding_runs


def test_a_batch_is_embedded_anew_as_it_was_asked_for(
    store: ObjectStore, batch: Batch, request_of: Callable[..., BatchRequest]
) -> None:
    record_request(store, batch, request_of(top_k=7), "landing")
    (run,) = reembedding_runs(batch.data_uri, [batch.batch_id, batch.batch_id])
    assert (run["batch_id"], run["data_uri"], run["top_k"]) == (batch.batch_id, batch.data_uri, 7)
    assert run["replace_results"] is True and "landing_sha256" not in run


def test_a_batch_that_was_never_run_is_refused(batch: Batch) -> None:
    with pytest.raises(InvalidInput, match=r"'2026-11-20' has no request\.json"):
        reembedding_runs(batch.data_uri, [batch.batch_id])
