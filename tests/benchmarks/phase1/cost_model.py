"""What a batch would cost on AWS: a model, not a measurement.

Its only measured number is the best rate of ``kmer-mlp`` in part 4, start included, for each CPU. Everything else
is assumed and stands in :data:`ASSUMPTIONS`.
"""

from __future__ import annotations

from typing import Any

from tasks.cost.prices import PriceTable
from tests.benchmarks.phase1.models import DNABERT_2

ASSUMPTIONS: dict[str, Any] = {
    "cpu_instance": "c7i.4xlarge",
    "cpus_of_it": 16,
    "cpu_efficiency": 0.8,
    "cpu_efficiency_is": "rate of a CPU there, among others, over the rate of a CPU measured here",
    "gpu_instance": "g6.xlarge",
    "gpu_peak_operations_per_second": 121e12,
    "gpu_peak_is": "NVIDIA L4, dense bfloat16, by its data sheet",
    "gpu_share_of_peak": 0.4,
    "tokens_per_short_read": 32,
    "tokens_are": "150 bases in byte pairs of about five, and two special tokens",
    "start_minutes": 5,
    "start_is": "instances and image until the first read; paid",
    "head_instance": "m7i.xlarge",
    "nodes": {"1e6": 1, "1e8": 8},
    "left_out": "S3 requests and storage, traffic, lost spot instances",
}


def batch_cost(
    reads: float, *, reads_per_second: float, nodes: int, node_usd: float, head_usd: float
) -> dict[str, float]:
    """Hours and dollars of a batch of short reads.

    :param reads_per_second: of one node.
    :param node_usd: spot price of a node and hour; ``head_usd`` the on-demand price of the head node.
    """
    hours = ASSUMPTIONS["start_minutes"] / 60 + reads / (reads_per_second * nodes) / 3600
    return {"hours": round(hours, 3), "usd": round(hours * (nodes * node_usd + head_usd), 2)}


def dnabert_2_operations_per_read() -> float:
    """Multiplications and additions of one short read in DNABERT-2."""
    tokens, hidden = ASSUMPTIONS["tokens_per_short_read"], DNABERT_2["hidden_size"]
    layers, width = DNABERT_2["num_hidden_layers"], DNABERT_2["intermediate_size"]
    weights = layers * (4 * hidden**2 + 3 * hidden * width)
    return float(2 * weights * tokens + 4 * layers * hidden * tokens**2)


def model(measured_reads_per_second_per_cpu: float, prices: PriceTable) -> dict[str, Any]:
    """Rows for 1e6 and 1e8 reads on CPUs (kmer-mlp) and GPUs (DNABERT-2), with what they rest on."""
    gpu_rate = ASSUMPTIONS["gpu_peak_operations_per_second"] * ASSUMPTIONS["gpu_share_of_peak"]
    cpu_rate = measured_reads_per_second_per_cpu * ASSUMPTIONS["cpus_of_it"] * ASSUMPTIONS["cpu_efficiency"]
    ways = {
        "kmer-mlp": (ASSUMPTIONS["cpu_instance"], cpu_rate),
        "dnabert-2": (ASSUMPTIONS["gpu_instance"], gpu_rate / dnabert_2_operations_per_read()),
    }
    head = prices.price(ASSUMPTIONS["head_instance"]).on_demand
    rows = []
    for encoder, (instance, rate) in ways.items():
        price = prices.price(instance)
        for reads, nodes in ASSUMPTIONS["nodes"].items():
            node_usd = price.on_demand if price.spot is None else price.spot
            cost = batch_cost(
                float(reads), reads_per_second=rate, nodes=nodes, node_usd=node_usd, head_usd=head
            )
            row = {"encoder": encoder, "reads": reads, "instance": instance, "nodes": nodes}
            rows.append(
                {**row, "usd_per_node_hour": node_usd, "reads_per_second_per_node": round(rate), **cost}
            )
    return {
        "measured_reads_per_second_per_cpu": round(measured_reads_per_second_per_cpu),
        "assumptions": ASSUMPTIONS,
        "prices_as_of": prices.as_of.isoformat(),
        "rows": rows,
    }
