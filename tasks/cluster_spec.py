"""The cluster that the MPI jobs run on: what may be chosen of it, what it may cost, and its configuration.

``cluster.yaml.jinja`` beside this file is the ParallelCluster configuration, with a blank for each choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Annotated, Any, Literal

from jinja2 import Environment, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from tasks.cost.prices import PriceTable, current_prices
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore, ObjectUri

RUN_TAG = "strandloop:run-id"
BUDGET_TAG = "strandloop:budget-usd"

BILLING_PER_USD_HOUR = 10_000
"""Slurm's ``billing`` of a node that costs a dollar an hour. It is cut to a whole number, so it must be fine."""


def _text(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=f"^{pattern}$")


Subnet = Annotated[str, _text("subnet-[0-9a-f]{8}([0-9a-f]{9})?")]
InstanceType = Annotated[str, _text(r"[a-z0-9-]+\.[a-z0-9-]+")]
S3Object = Annotated[str, _text("s3://[^/]+/.+[^/]")]


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Queue(_Fields):
    """A Slurm partition with nodes of one size, which are started for jobs and ended after them.

    :param instance_types: alternatives of the same size; EC2 starts which it has, by ``allocation_strategy``.
    :param spot: spot instances, at most at the on-demand price; they can be taken away at any time.
    :param allocation_strategy: ParallelCluster's name; the default is the one for spot, or for on-demand.
    :param efa: Elastic Fabric Adapter, MPI's fast network; most large instance types have it.
    :param placement_group: nodes close to each other; scarce capacity is harder to get with it.
    :param usd_per_hour: for instance types and regions that the price table does not have.
    """

    name: Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9-]*$", max_length=25)]
    instance_types: Annotated[tuple[InstanceType, ...], Field(min_length=1)]
    max_nodes: Annotated[int, Field(ge=1, le=1000)]
    spot: bool = False
    allocation_strategy: (
        Literal[
            "lowest-price",
            "prioritized",
            "capacity-optimized",
            "price-capacity-optimized",
            "capacity-optimized-prioritized",
        ]
        | None
    ) = None
    efa: bool = False
    placement_group: bool = False
    usd_per_hour: Annotated[float, Field(gt=0)] | None = None

    @property
    def strategy(self) -> str:
        """The allocation strategy."""
        return self.allocation_strategy or ("price-capacity-optimized" if self.spot else "lowest-price")


CPU_EFA = Queue(name="cpu-efa", instance_types=("c5n.18xlarge",), max_nodes=8, efa=True, placement_group=True)
GPU = Queue(name="gpu", instance_types=("g5.2xlarge",), max_nodes=4)
GPU_LARGE = Queue(
    name="gpu-large", instance_types=("p4d.24xlarge",), max_nodes=2, efa=True, placement_group=True
)


class HeadNode(_Fields):
    """The node that runs slurmctld and takes Airflow's SSH connections.

    :param ssh_key: name of an EC2 key pair.
    :param ssh_from: the addresses (CIDR) that may connect: those of Airflow's workers.
    """

    subnet: Subnet
    ssh_key: Annotated[str, StringConstraints(min_length=1)]
    ssh_from: Annotated[str, _text(r"[0-9.]+/[0-9]+")]
    instance_type: InstanceType = "m7i.xlarge"


class SharedStorage(_Fields):
    """FSx for Lustre, as old as the cluster; below ``mount``/data it shows what ``data_uri`` holds.

    :param gibibytes: 1200, 2400, or a multiple of 2400.
    """

    mount: Annotated[str, _text("/[^/]+")] = "/fsx"
    gibibytes: int = 1200


class Code(_Fields):
    """What ``make publish`` has uploaded: the code, and the script that installs it on a node."""

    archive: S3Object
    archive_sha256: Annotated[str, _text("[0-9a-f]{64}")]
    node_environment: S3Object


class Accounting(_Fields):
    """A MySQL database for Slurm's accounts, which lets Slurm itself end jobs when the budget is spent.

    :param database: HOST:PORT.
    :param password_secret: ARN of the Secrets Manager secret that holds the user's password.
    :param client_security_group: what the database lets in.
    :param budget_script: infra/parallelcluster/slurm_budget.sh, as ``make publish`` has uploaded it.
    """

    database: Annotated[str, StringConstraints(min_length=1)]
    user: Annotated[str, StringConstraints(min_length=1)]
    password_secret: Annotated[str, _text("arn:[^:]+:secretsmanager:.+:secret:.+")]
    client_security_group: Annotated[str, _text("sg-[0-9a-f]{8}([0-9a-f]{9})?")]
    budget_script: S3Object


class Budget(_Fields):
    """What the cluster may cost.

    :param usd: for head node and nodes together, at on-demand prices.
    :param hours: the longest job; also how long the most expensive use is thought to last.
    """

    usd: Annotated[float, Field(gt=0)]
    hours: Annotated[float, Field(gt=0, le=168)]


class ClusterSpec(_Fields):
    """One cluster.

    :param name: of a cluster that runs share; None for one of the run's own.
    :param compute_subnet: private, in the availability zone of the nodes and the shared storage.
    :param data_uri: root of the data, as the batches name it; nodes may read it and write batches/ in it.
    :param permissions_boundary: ARN of an IAM policy that bounds the cluster's roles.
    """

    name: Annotated[str, StringConstraints(pattern="^[a-zA-Z][a-zA-Z0-9-]*$", max_length=40)] | None = None
    region: Annotated[str, _text("[a-z]+(-[a-z]+)+-[0-9]+")]
    head_node: HeadNode
    compute_subnet: Subnet
    data_uri: Annotated[str, _text("s3://[^/]+(/[^/]+)*")]
    code: Code
    budget: Budget
    queues: tuple[Queue, ...] = (CPU_EFA, GPU, GPU_LARGE)
    shared_storage: SharedStorage = SharedStorage()
    accounting: Accounting | None = None
    permissions_boundary: str | None = None

    @field_validator("queues")
    @classmethod
    def _names_differ(cls, queues: tuple[Queue, ...]) -> tuple[Queue, ...]:
        names = [queue.name for queue in queues]
        if not names:
            raise ValueError("there must be at least one")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one is named {', '.join(map(repr, twice))}")
        return queues


def cluster_configuration(fields: Mapping[str, Any], *, run_id: str) -> dict[str, str]:
    """What a cluster is created from: ``cluster_name``, ``region`` and ``cluster_configuration`` (YAML).

    The name is empty for a cluster of the run's own.

    :param fields: the fields of :class:`ClusterSpec`.
    :param run_id: the DAG run that the cluster is for, as ``DAG/RUN``; it becomes a tag.
    :raises InvalidInput: for fields that are wrong, all of them named, a cluster beyond its budget, or code
        that was not published.
    """
    spec, prices = read_spec(fields), current_prices()
    check_budget(spec, prices)
    check_code(spec, ObjectStore())
    return {
        "cluster_name": spec.name or "",
        "region": spec.region,
        "cluster_configuration": render(spec, prices, run_id=run_id),
    }


def read_spec(fields: Mapping[str, Any]) -> ClusterSpec:
    """The cluster of these fields; raises InvalidInput that names everything that is wrong."""
    try:
        return ClusterSpec.model_validate(fields)
    except ValidationError as error:
        lines = [
            f"  - {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            + (f"; it is {problem['input']!r}" if isinstance(problem["input"], str | int | float) else "")
            for problem in error.errors()
        ]
        raise InvalidInput("\n".join(["the cluster cannot be made as it is described:", *lines])) from error


def node_price(queue: Queue, prices: PriceTable) -> float:
    """US dollars that a node of the queue costs an hour at most: spot never costs more than on-demand."""
    if queue.usd_per_hour is not None:
        return queue.usd_per_hour
    try:
        return max(prices.price(instance_type).on_demand for instance_type in queue.instance_types)
    except InvalidInput as error:
        raise InvalidInput(f"queue {queue.name}: {error}, or give the queue a usd_per_hour") from error


def check_budget(spec: ClusterSpec, prices: PriceTable) -> None:
    """Refuse a cluster whose nodes, all running for the budget's hours, cost more than its dollars.

    :raises InvalidInput: with what each part would cost.
    """
    head = prices.price(spec.head_node.instance_type).on_demand
    costs = {f"head node {spec.head_node.instance_type} at ${head:g} an hour": head}
    for queue in spec.queues:
        price = node_price(queue, prices)
        words = (
            f"queue {queue.name}, {queue.max_nodes} x {'/'.join(queue.instance_types)} at ${price:g} an hour"
        )
        costs[words] = queue.max_nodes * price
    hours, usd = spec.budget.hours, spec.budget.usd
    if (most := hours * sum(costs.values())) > usd:
        lines = [f"  - {words}: ${hours * cost:,.2f}" for words, cost in costs.items()]
        raise InvalidInput(
            f"the cluster could cost ${most:,.2f} in {hours:g} hours, and its budget is ${usd:,.2f}:\n"
            + "\n".join(lines)
            + "\nGive it fewer max_nodes, fewer queues or fewer hours, or a larger budget "
            f"(on-demand prices of {prices.as_of}, {prices.region})"
        )


def check_code(spec: ClusterSpec, store: ObjectStore) -> None:
    """Refuse a cluster whose nodes would look for code in vain; ParallelCluster would only warn of it.

    :raises InvalidInput: with the objects that are not there.
    """
    wanted = [spec.code.archive, spec.code.node_environment]
    if spec.accounting is not None:
        wanted.append(spec.accounting.budget_script)
    missing = [uri for uri in wanted if store.head(ObjectUri.parse(uri)) is None]
    if missing:
        raise InvalidInput(
            f"the cluster needs what is not in S3: {', '.join(missing)}. "
            "Publish it (make publish BUCKET=...), and name it as that command prints it"
        )


def render(spec: ClusterSpec, prices: PriceTable, *, run_id: str) -> str:
    """The ParallelCluster configuration; pure."""
    template = resources.files("tasks").joinpath("cluster.yaml.jinja").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(template).render(
        spec=spec,
        price=lambda queue: node_price(queue, prices),
        billing_per_usd_hour=BILLING_PER_USD_HOUR,
        billing_per_usd=BILLING_PER_USD_HOUR * 60,
        bucket=lambda uri: ObjectUri.parse(uri).bucket,
        key=lambda uri: ObjectUri.parse(uri).key,
        tags={RUN_TAG: run_id, BUDGET_TAG: f"{spec.budget.usd:g}"},
    )
