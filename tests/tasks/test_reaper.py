from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.cost.prices import current_prices
from tasks.reaper import leftovers, spent

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def instance(kind: str = "m7i.xlarge", *, hours: float = 1.0, spot: bool = False, now: datetime = NOW) -> Any:
    launched = (now - timedelta(hours=hours)).isoformat()
    return {"id": "i-1", "instance_type": kind, "launched_at": launched, "spot": spot}


def cluster(run: str, *, budget: str | None = None, hours: float = 1.0) -> dict[str, Any]:
    tags = {} if budget is None else {"strandloop:budget-usd": budget}
    machines = [instance(hours=hours, now=datetime.now(UTC))]
    return {"kind": "cluster", "name": run, "run": run, "tags": tags, "instances": machines}


def test_what_instances_have_cost() -> None:
    prices = current_prices()
    head, node = prices.price("m7i.xlarge"), prices.price("c7i.2xlarge")
    assert node.spot is not None
    machines = [instance(hours=2), instance("c7i.2xlarge", spot=True), instance("unheard.of", hours=100)]
    assert spent(machines, prices, NOW) == pytest.approx(2 * head.on_demand + node.spot)


def test_what_is_left_over(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        cluster("d/runs"),
        cluster("d/ended"),
        cluster("d/forgotten"),
        cluster("d/costly", budget="1", hours=100),
        cluster("d/cheap", budget="100", hours=1),
        {"kind": "Slurm job", "name": "7", "run": "d/ended"},
    ]
    states = {"d/runs": "running", "d/ended": "success", "d/costly": "running", "d/cheap": "queued"}
    left = leftovers(found, {**states, "d/forgotten": None})
    assert [one["name"] for one in left] == ["d/ended", "d/forgotten", "d/costly", "7"]
    said = capsys.readouterr().out
    assert "cluster d/runs of d/runs, 1 instances, $0.20 so far: in use" in said
    assert "Slurm job 7 of d/ended: its run d/ended is success" in said
    assert "it has cost $20.16 or more, and its budget is $1.00" in said
    assert "4 of 6 are left over" in said
