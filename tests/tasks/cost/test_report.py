"""Node-seconds and dollars of a batch, from its job records."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from tasks.batches import Batch
from tasks.cost import report
from tasks.cost.prices import HourlyPrice, PriceTable
from tasks.cost.report import cost_report, price_jobs
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore

PRICES = PriceTable(
    region="us-east-1",
    as_of=date(2026, 9, 1),
    source="a list",
    source_url="https://example.org/list",
    spot_source="typical values",
    spot_source_url="https://example.org/spot",
    usd_per_hour={
        "worker": HourlyPrice(0.36, 0.12),
        "gpu": HourlyPrice(0.72, 0.36),
        "compute": HourlyPrice(3.6, 1.2),
        "head": HourlyPrice(0.18, None),
    },
    assumed_instance_types={
        "embed": "worker",
        "stage": "compute",
        "similarity": "compute",
        "collect": "compute",
        "head": "head",
    },
)


def job(phase: str, start: str, end: str, **fields: Any) -> dict[str, Any]:
    return {
        "phase": phase,
        "system": "ray" if phase == "embed" else "slurm",
        "id": "7",
        "name": "some-identity",
        "state": "SUCCEEDED",
        "submitted_at": f"2026-11-20T{start}Z",
        "started_at": f"2026-11-20T{start}Z",
        "ended_at": f"2026-11-20T{end}Z",
        "nodes": 1,
        "attempt": 1,
        **fields,
    }


def a_batch() -> list[dict[str, Any]]:
    return [
        job("embed", "08:00:00", "08:10:00", nodes=4),
        job("stage", "08:11:00", "08:11:36"),
        job("similarity", "08:12:00", "08:17:00", nodes=2, attempt=2),
        job("collect", "08:18:00", "08:19:00"),
    ]


@pytest.mark.parametrize(
    ("phase", "nodes", "attempts", "seconds", "node_seconds", "usd_on_demand", "usd_spot"),
    [
        ("embed", 4, 1, 600, 2400, 0.24, 0.08),
        ("stage", 1, 1, 36, 36, 0.036, 0.012),
        ("similarity", 2, 2, 300, 600, 0.6, 0.2),
        ("collect", 1, 1, 60, 60, 0.06, 0.02),
        ("ray head", 1, 0, 600, 600, 0.03, 0.03),
        ("slurm head", 1, 0, 480, 480, 0.024, 0.024),
    ],
)
def test_cost_of_each_line(
    phase: str,
    nodes: int,
    attempts: int,
    seconds: float,
    node_seconds: float,
    usd_on_demand: float,
    usd_spot: float,
) -> None:
    cost = price_jobs(a_batch(), PRICES)
    line = next(line for line in cost["phases"] + cost["head_nodes"] if line["name"] == phase)
    assert (line["nodes"], line["attempts"]) == (nodes, attempts)
    assert (line["seconds"], line["node_seconds"]) == (seconds, node_seconds)
    assert (line["usd_on_demand"], line["usd_spot"]) == (usd_on_demand, usd_spot)


def test_the_total_is_the_sum_of_the_lines() -> None:
    total = price_jobs(a_batch(), PRICES)["total"]
    assert total == {
        "node_seconds": 2400 + 36 + 600 + 60 + 600 + 480,
        "usd_on_demand": pytest.approx(0.24 + 0.036 + 0.6 + 0.06 + 0.03 + 0.024),
        "usd_spot": pytest.approx(0.08 + 0.012 + 0.2 + 0.02 + 0.03 + 0.024),
    }


def test_a_cluster_that_was_made_for_the_batch_is_paid_from_its_creation_and_for_waiting() -> None:
    """Its head node costs 0.18 $/h: created 08:00, ready 08:06, first job 08:11, last end 08:19."""
    made = {"created_at": "2026-11-20T08:00:00.000Z", "ready_at": "2026-11-20T08:06:00Z"}
    without, cost = price_jobs(a_batch(), PRICES), price_jobs(a_batch(), PRICES, made)
    head = next(line for line in cost["head_nodes"] if line["name"] == "slurm head")
    assert (head["seconds"], head["usd_on_demand"]) == (19 * 60, 0.057)
    (waiting,) = cost["waiting"]
    assert (waiting["seconds"], waiting["usd_on_demand"]) == (5 * 60, 0.015)
    assert cost["total"]["usd_on_demand"] == pytest.approx(without["total"]["usd_on_demand"] + 0.033)
    assert price_jobs(a_batch(), PRICES, {"cluster": "existing"}) == without
    assert without["waiting"] == []


def test_a_cluster_s_head_node_is_priced_as_what_it_is() -> None:
    made = {
        "created_at": "2026-11-20T08:00:00Z",
        "ready_at": "2026-11-20T08:30:00Z",
        "head_instance_type": "gpu",
    }
    cost = price_jobs(a_batch(), PRICES, made)
    assert [line["instance_type"] for line in cost["head_nodes"]] == ["head", "gpu"]
    assert cost["waiting"][0]["seconds"] == 0  # the first job was there before we looked


def test_the_assumption_is_stated() -> None:
    cost = price_jobs(a_batch(), PRICES)
    assert "would have cost on AWS" in cost["basis"]
    assert [line["instance_type"] for line in cost["phases"]] == ["worker", "compute", "compute", "compute"]
    assert cost["prices"]["as_of"] == "2026-09-01"


def test_a_record_may_say_what_its_nodes_were() -> None:
    jobs = a_batch()
    jobs[0]["instance_type"] = "gpu"
    assert price_jobs(jobs, PRICES)["phases"][0]["usd_on_demand"] == 0.48


def test_attempts_that_left_records_add_up() -> None:
    jobs = [*a_batch(), job("embed", "07:00:00", "07:05:00", nodes=2, state="FAILED")]
    embed = price_jobs(jobs, PRICES)["phases"][0]
    assert (embed["node_seconds"], embed["attempts"]) == (2400 + 600, 2)


def test_times_may_carry_any_zone() -> None:
    jobs = a_batch()
    jobs[1]["started_at"] = "2026-11-20T09:11:00+01:00"
    assert price_jobs(jobs, PRICES)["phases"][1]["seconds"] == 36


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"started_at": None}, r"job record 2 \('stage', slurm job 7\) has no started_at"),
        ({"started_at": "yesterday"}, "started_at of job record 2 .* is 'yesterday', not an ISO 8601 time"),
        ({"started_at": "2026-11-20T08:11:00"}, "has no time zone"),
        ({"ended_at": "2026-11-20T08:10:00Z"}, "before it started"),
        ({"nodes": 0}, "ran on 0 nodes"),
        ({"phase": "dance"}, "has another phase than embed, stage"),
    ],
)
def test_a_wrong_record_is_named(change: dict[str, Any], message: str) -> None:
    jobs = a_batch()
    jobs[1].update(change)
    with pytest.raises(InvalidInput, match=message):
        price_jobs(jobs, PRICES)


def test_missing_phases_are_named() -> None:
    with pytest.raises(InvalidInput, match="no job record of phase stage and collect"):
        price_jobs([a_batch()[0], a_batch()[2]], PRICES)


def test_a_skipped_task_is_named() -> None:
    with pytest.raises(InvalidInput, match="job record 1 is None"):
        price_jobs([None, *a_batch()], PRICES)  # type: ignore[list-item]


def test_old_prices_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the price table is of 2025-01-01"):
        price_jobs(a_batch(), replace(PRICES, as_of=date(2025, 1, 1)))


def test_published_once(s3_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, prefix = ObjectStore(), Batch(s3_root, "2026-11-20").results / "cost"
    monkeypatch.setattr(report, "current_prices", lambda: PRICES)
    first = cost_report(s3_root, "2026-11-20", a_batch())
    body = store.get_bytes(prefix / "cost.json")
    assert first["status"] == "written"
    assert store.get_json(prefix / "cost.json")["total"]["usd_spot"] == first["usd_spot"]

    again = cost_report(s3_root, "2026-11-20", [])
    assert again == {**first, "status": "unchanged"}
    assert store.get_bytes(prefix / "cost.json") == body
