"""Which machines and jobs of DAG runs are left over: their run has ended, or their budget is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tasks.cluster_spec import BUDGET_TAG
from tasks.cost.prices import PriceTable, current_prices

ALIVE = {"queued", "running"}


def leftovers(found: Sequence[Mapping[str, Any]], runs: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return what is left over of what was found, each with its ``reason`` and ``usd``, and print it.

    :param found: clusters, Ray clusters and Slurm jobs: ``kind``, ``name``, ``run``, and of machines ``tags``
        and ``instances`` (``instance_type``, ``launched_at``, ``spot``).
    :param runs: run -> its state; None where Airflow does not know it any more.
    """
    prices, now = current_prices(), datetime.now(UTC)
    judged = [
        {**one, "usd": usd, "reason": why_left_over(one, runs.get(one["run"]), usd)}
        for one in found
        for usd in [spent(one.get("instances", ()), prices, now)]
    ]
    for one in judged:
        print(f"{in_words(one)}: {one['reason'] or 'in use'}")
    left = [one for one in judged if one["reason"]]
    print(f"{len(left)} of {len(judged)} are left over")
    return left


def why_left_over(one: Mapping[str, Any], state: str | None, usd: float) -> str:
    """Why it should not be there any more, in words; empty where it should.

    :param state: of the run that has made it.
    :param usd: what it has cost so far.
    """
    if state not in ALIVE:
        return f"its run {one['run']} is {state or 'not known to Airflow any more'}"
    budget = one.get("tags", {}).get(BUDGET_TAG)
    if budget is not None and usd > float(budget):
        return f"it has cost ${usd:,.2f} or more, and its budget is ${float(budget):,.2f}"
    return ""


def spent(instances: Sequence[Mapping[str, Any]], prices: PriceTable, now: datetime) -> float:
    """US dollars that these instances have cost since their start: a lower bound of what their cluster has.

    Nodes that have ended are not among them, nor storage; instance types that the price table does not have
    count as nothing.
    """
    usd = 0.0
    for instance in instances:
        price = prices.usd_per_hour.get(instance["instance_type"])
        if price is not None:
            hours = (now - datetime.fromisoformat(instance["launched_at"])).total_seconds() / 3600
            usd += hours * (price.spot if instance["spot"] and price.spot is not None else price.on_demand)
    return usd


def in_words(one: Mapping[str, Any]) -> str:
    """One line about it."""
    machines = f", {len(one['instances'])} instances, ${one['usd']:,.2f} so far" if "instances" in one else ""
    return f"{one['kind']} {one['name']} of {one['run']}{machines}"
