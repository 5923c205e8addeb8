"""What a batch cost: node-seconds from the job records, dollars from a dated price table.

The records say when a job ran and on how many nodes, not on which machines; the instance type of each phase is
therefore an assumption, and stated. Where the jobs ran on machines of one's own, the result is what the run
would have cost on AWS.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from tasks import results
from tasks.batches import Batch
from tasks.cost.prices import PriceTable, current_prices
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore

PHASES = ("embed", "stage", "similarity", "collect")
BASIS = (
    "Measured node time at list prices of the instance types named: what this run would have cost on AWS. "
    "Not a bill."
)
NOT_INCLUDED = (
    "boot and idle time of workers",
    "attempts that left no job record",
    "FSx, S3, MWAA, data transfer and tax",
)


def cost_report(
    data_uri: str,
    batch_id: str,
    jobs: Sequence[Mapping[str, Any]],
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Publish ``cost/cost.json`` of a batch, once.

    :param jobs: job records, each with its ``phase`` (one of :data:`PHASES`) added, and optionally the
        ``instance_type`` that its nodes had. Several records of one phase (attempts, array parts) add up.
    :param cluster: of a Slurm cluster that was made for the batch: ``created_at``, ``ready_at`` and
        ``head_instance_type``. One that was there before has none of them.
    :return: ``status``, ``node_seconds``, ``usd_on_demand``, ``usd_spot``.
    :raises InvalidInput: a phase has no record, a record lacks a time, or the price table is too old.
    """
    store, prefix = ObjectStore(), Batch(data_uri, batch_id).results / "cost"
    known = results.find(store, prefix)
    if known is not None:
        print(f"{prefix} is finished already: unchanged")
        return {"status": "unchanged", **known.details}
    cost = price_jobs(jobs, current_prices(), cluster)
    body = json.dumps(cost, indent=2, sort_keys=True).encode() + b"\n"
    results.publish(store, prefix, {"cost.json": body}, cost["total"])
    return {"status": "written", **cost["total"]}


@dataclass(frozen=True)
class CostLine:
    """One line of the bill.

    :param attempts: how often the phase's job was submitted; a head node has none.
    :param seconds: from the first start to the last end.
    :param node_seconds: nodes x seconds, summed over the phase's jobs.
    """

    name: str
    instance_type: str
    nodes: int
    attempts: int
    seconds: float
    node_seconds: float
    usd_per_hour_on_demand: float
    usd_per_hour_spot: float | None
    usd_on_demand: float
    usd_spot: float


def price_jobs(
    jobs: Sequence[Mapping[str, Any]], prices: PriceTable, cluster: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The content of ``cost.json``; pure.

    Each of the two clusters adds a head node, on demand, from its first submission to its last end; a Slurm
    cluster that was made for the batch, from its creation. How long that one was ready before anybody had a
    job for it is ``waiting``; it is a part of the head node's line and adds nothing to the total.
    """
    runs = [_read(job, position) for position, job in enumerate(jobs, start=1)]
    missing = [phase for phase in PHASES if not any(run.phase == phase for run in runs)]
    if missing:
        raise InvalidInput(
            f"there is no job record of phase {' and '.join(missing)}; the cost of a batch needs a record of "
            f"each of {', '.join(PHASES)}. Look at that phase's task: it was skipped or returned no record"
        )
    prices.check_age(min(run.started for run in runs).date())
    phases = [_phase_line(phase, [run for run in runs if run.phase == phase], prices) for phase in PHASES]
    systems = sorted({run.system for run in runs})
    made = cluster if cluster and cluster.get("created_at") else None
    heads = [
        _head_line(
            system,
            [run for run in runs if run.system == system],
            prices,
            made=made if system == "slurm" else None,
        )
        for system in systems
    ]
    lines = phases + heads
    return {
        "basis": BASIS,
        "not_included": list(NOT_INCLUDED),
        "prices": {
            "region": prices.region,
            "as_of": prices.as_of.isoformat(),
            "source": prices.source,
            "source_url": prices.source_url,
            "spot_source": prices.spot_source,
            "spot_source_url": prices.spot_source_url,
        },
        "phases": [asdict(line) for line in phases],
        "head_nodes": [asdict(line) for line in heads],
        "waiting": [asdict(line) for line in _waiting_lines(runs, prices, made)],
        "total": {
            "node_seconds": round(sum(line.node_seconds for line in lines), 3),
            "usd_on_demand": round(sum(line.usd_on_demand for line in lines), 6),
            "usd_spot": round(sum(line.usd_spot for line in lines), 6),
        },
    }


@dataclass(frozen=True)
class _Run:
    phase: str
    system: str
    instance_type: str | None
    nodes: int
    attempt: int
    submitted: datetime
    started: datetime
    ended: datetime

    @property
    def node_seconds(self) -> float:
        return self.nodes * (self.ended - self.started).total_seconds()


def _read(job: Any, position: int) -> _Run:
    """One job record; raises InvalidInput that says which record is wrong, and how."""
    if not isinstance(job, Mapping):
        raise InvalidInput(f"job record {position} is {job!r}: the task before it was skipped or failed")
    where = f"job record {position} ({job.get('phase')!r}, {job.get('system')} job {job.get('id')})"
    fields = ("phase", "system", "nodes", "attempt", "submitted_at", "started_at", "ended_at")
    absent = [name for name in fields if job.get(name) is None]
    if absent:
        raise InvalidInput(f"{where} has no {', '.join(absent)}; its cost cannot be told")
    if job["phase"] not in PHASES:
        raise InvalidInput(f"{where} has another phase than {', '.join(PHASES)}")
    submitted, started, ended = (
        _time(job[name], where=f"{name} of {where}") for name in ("submitted_at", "started_at", "ended_at")
    )
    if ended < started:
        raise InvalidInput(f"{where} ended at {job['ended_at']}, before it started at {job['started_at']}")
    if job["nodes"] < 1:
        raise InvalidInput(f"{where} ran on {job['nodes']} nodes")
    return _Run(
        phase=job["phase"],
        system=job["system"],
        instance_type=job.get("instance_type"),
        nodes=job["nodes"],
        attempt=job["attempt"],
        submitted=submitted,
        started=started,
        ended=ended,
    )


def _time(text: str, *, where: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{where} is {text!r}, not an ISO 8601 time") from error
    if moment.tzinfo is None:
        raise InvalidInput(f"{where} is {text!r}, which has no time zone; job records are in UTC")
    return moment.astimezone(UTC)


def _phase_line(phase: str, runs: list[_Run], prices: PriceTable) -> CostLine:
    instance_type = runs[-1].instance_type or prices.assumed_instance_types[phase]
    return _line(
        phase,
        instance_type,
        prices,
        nodes=max(run.nodes for run in runs),
        attempts=max(len(runs), *(run.attempt for run in runs)),
        seconds=(max(run.ended for run in runs) - min(run.started for run in runs)).total_seconds(),
        node_seconds=sum(run.node_seconds for run in runs),
    )


def _head_line(
    system: str, runs: list[_Run], prices: PriceTable, *, made: Mapping[str, Any] | None
) -> CostLine:
    since = min(run.submitted for run in runs)
    if made is not None:
        since = min(since, _time(made["created_at"], where="created_at of the cluster"))
    seconds = (max(run.ended for run in runs) - since).total_seconds()
    return _line(
        f"{system} head",
        _head_type(prices, made),
        prices,
        nodes=1,
        attempts=0,
        seconds=seconds,
        node_seconds=seconds,
    )


def _waiting_lines(runs: list[_Run], prices: PriceTable, made: Mapping[str, Any] | None) -> list[CostLine]:
    if made is None:
        return []
    first = min(run.submitted for run in runs if run.system == "slurm")
    ready = _time(made["ready_at"], where="ready_at of the cluster")
    seconds = max((first - ready).total_seconds(), 0.0)
    return [
        _line(
            "slurm head waiting",
            _head_type(prices, made),
            prices,
            nodes=1,
            attempts=0,
            seconds=seconds,
            node_seconds=seconds,
        )
    ]


def _head_type(prices: PriceTable, made: Mapping[str, Any] | None) -> str:
    return (made or {}).get("head_instance_type") or prices.assumed_instance_types["head"]


def _line(
    name: str,
    instance_type: str,
    prices: PriceTable,
    *,
    nodes: int,
    attempts: int,
    seconds: float,
    node_seconds: float,
) -> CostLine:
    price = prices.price(instance_type)
    hours = node_seconds / 3600
    spot = price.on_demand if price.spot is None else price.spot
    return CostLine(
        name=name,
        instance_type=instance_type,
        nodes=nodes,
        attempts=attempts,
        seconds=round(seconds, 3),
        node_seconds=round(node_seconds, 3),
        usd_per_hour_on_demand=price.on_demand,
        usd_per_hour_spot=price.spot,
        usd_on_demand=round(hours * price.on_demand, 6),
        usd_spot=round(hours * spot, 6),
    )
