"""What of the benchmark can be wrong without anybody seeing it in its table."""

from __future__ import annotations

from pathlib import Path

import dnaio
import numpy as np
import pyarrow as pa
import pytest

from tests.benchmarks.phase1.cost_model import batch_cost
from tests.benchmarks.phase1.inputs import ADAPTER, FILES, make_inputs
from tests.benchmarks.phase1.service import difference


def test_inputs_are_what_they_say_they_are(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, 800)
    records = {
        name: [record for path in source.paths for record in dnaio.open(path)]
        for name, source in inputs.items()
    }
    for name, source in inputs.items():
        assert len(source.paths) == FILES
        assert (source.reads, source.bases) == (len(records[name]), sum(map(len, records[name])))
    assert {len(record) for record in records["short"]} == {150}
    assert all(1_000 <= len(record) <= 10_000 for record in records["long"])
    with_adapter = sum(ADAPTER[:12] in record.sequence for record in records["short"])
    assert 80 < with_adapter < 240  # a fifth of 800, a few of them too late in the read or with an error


def test_rows_are_compared_by_read_id_and_value() -> None:
    def rows(ids: list[str], values: list[float]) -> pa.Table:
        packed = [np.array([value, 0], "<f4").tobytes() for value in values]
        return pa.table({"read_id": ids, "vector": pa.array(packed, pa.binary(8))})

    ours = rows(["a:1", "a:2"], [0.5, 0.25])
    assert difference(ours, ours) == 0
    assert difference(ours, rows(["a:1", "a:2"], [0.5, 0.75])) == 0.5
    assert difference(ours, rows(["a:1", "a:3"], [0.5, 0.25])) == float("inf")


def test_the_model_of_the_cost_by_hand() -> None:
    # 5 minutes to start, then 3.6e6 reads at 2 x 500 reads/s: one hour; two nodes and the head.
    cost = batch_cost(3.6e6, reads_per_second=500, nodes=2, node_usd=0.25, head_usd=0.1)
    assert cost["hours"] == pytest.approx(1 + 5 / 60, abs=1e-3)
    assert cost["usd"] == pytest.approx((1 + 5 / 60) * 0.6, abs=0.01)
