"""What the kernel would take on 64 to 4,096 nodes: a prediction, written to ``hpc_jobs/mpi_dna_seq/SCALING.md``.

``python -m tests.benchmarks.kernel.prediction`` writes the tables of that page and its plot anew from
``calibration.json``, which is what part 3 of the benchmark measured; ``--measured .local/bench/kernel.json`` takes
a new measurement into that file first. All that is not measured stands in :data:`ASSUMED`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.cost.prices import PriceTable, current_prices
from tests.benchmarks.bench_daily_run import ROOT
from tests.benchmarks.kernel.scaling_model import Cluster, Parts, cells_seconds, member_bytes, ring_seconds

CALIBRATION = Path(__file__).with_name("calibration.json")
PAGE = ROOT / "hpc_jobs" / "mpi_dna_seq" / "SCALING.md"
PLOT = PAGE.with_name("scaling.svg")
BEGIN, END = "<!-- tables: made by tests/benchmarks/kernel/prediction.py -->", "<!-- end of the tables -->"

ROWS = (10**6, 10**7, 10**8, 10**9)
NODES = (64, 256, 1024, 4096)
LAYERS = (1, 2, 4, 8, 16)
PRECISIONS = ("int8-exact", "fp32")
NPROBE = 8
INSTANCE = "c7i.48xlarge"
ASSUMED: dict[str, tuple[float, str]] = {
    "cores": (96, "physical cores of a node, and a rank on each"),
    "core_share": (
        0.7,
        "of the speed of the core measured here, alone, is that of a core there, among others",
    ),
    "memory_gib": (384, "GiB of memory of a node"),
    "rank_mib": (100, "MiB that a rank holds before it reads a vector: Python, numpy, MPI"),
    "network_gbit": (50, "Gbit/s of a node's network, each way"),
    "network_share": (0.8, "of that is what large messages reach"),
    "alpha_us": (30, "µs for a message between two nodes, by EFA and MPI"),
    "barrier_us": (10, "µs for a barrier of the ranks of a node"),
    "storage_gb": (20, "GB/s of the file system, to all nodes together"),
    "boot_minutes": (5, "minutes of boot and job start, paid, not in the times"),
    "imbalance": (1.5, "times the mean rank's work in its cells is the busiest one's"),
}
LEFT_OUT = "head node, file system, traffic, lost spot instances, checkpoints, failures"


@dataclass(frozen=True)
class Prediction:
    """One run of so many rows on so many nodes.

    :param exact: the half ring with ``layers`` copies of the rows; else cells, whose number is ``cells``.
    :param parts: of the comparison; ``io_seconds`` reads the store and writes the neighbours.
    :param node_gib: what a node holds; where that is more than it has, the run is impossible.
    :param usd: on demand and spot, the boot included.
    """

    rows: int
    nodes: int
    exact: bool
    layers: int
    cells: int
    parts: Parts
    io_seconds: float
    node_gib: float
    usd: tuple[float, float]

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.parts.total + self.io_seconds

    @property
    def possible(self) -> bool:
        """Whether a node's memory is enough."""
        return self.node_gib <= assumed("memory_gib")


def predict(
    rows: int, nodes: int, *, exact: bool, measured: Mapping[str, Any], prices: PriceTable
) -> Prediction:
    """With the replication that is fastest among those that a node's memory allows.

    :param measured: ``calibration`` of part 3; the faster precision at its dimension is taken.
    """
    dim, k = measured["dim"], measured["k"]
    precision = fastest_precision(measured)
    cluster = Cluster(
        members=nodes,
        ranks=round(assumed("cores")),
        pairs_per_second=measured["pairs_per_second_of_a_core"][precision] * assumed("core_share"),
        alpha_seconds=assumed("alpha_us") * 1e-6,
        bytes_per_second=assumed("network_gbit") / 8 * 1e9 * assumed("network_share"),
        barrier_seconds=assumed("barrier_us") * 1e-6,
    )
    io_seconds = rows * (4 * dim + 24 * k) / (assumed("storage_gb") * 1e9)

    def node_gib(of: Cluster, copies: float = 1.0) -> float:
        rows_bytes = member_bytes(rows, dim=dim, k=k, cluster=of, quantised=precision == "int8-exact")
        return (copies * rows_bytes + of.ranks * assumed("rank_mib") * 2**20) / 2**30

    def made(of: Cluster, parts: Parts, cells: int, gib: float) -> Prediction:
        hours = (parts.total + io_seconds) / 3600 + assumed("boot_minutes") / 60
        price = prices.price(INSTANCE)
        spot = price.on_demand if price.spot is None else price.spot
        usd = (nodes * hours * price.on_demand, nodes * hours * spot)
        return Prediction(rows, nodes, exact, of.layers, cells, parts, io_seconds, gib, usd)

    if not exact:
        cells = round(rows**0.5)  # what the kernel takes where nothing else is said
        imbalance = assumed("imbalance")
        parts = cells_seconds(
            rows, dim=dim, k=k, cluster=cluster, cells=cells, nprobe=NPROBE, imbalance=imbalance
        )
        return made(cluster, parts, cells, node_gib(cluster, copies=2))
    options = [replace(cluster, layers=layers) for layers in LAYERS]
    fitting = [of for of in options if node_gib(of) <= assumed("memory_gib")] or options[:1]
    found = [made(of, ring_seconds(rows, dim=dim, k=k, cluster=of), 0, node_gib(of)) for of in fitting]
    return min(found, key=lambda prediction: prediction.seconds)


def assumed(name: str) -> float:
    """One of :data:`ASSUMED`."""
    return ASSUMED[name][0]


def fastest_precision(measured: Mapping[str, Any]) -> str:
    """Of those measured on one core."""
    rates = measured["pairs_per_second_of_a_core"]
    return max(PRECISIONS, key=lambda precision: rates[precision])


def predictions(measured: Mapping[str, Any], prices: PriceTable) -> list[Prediction]:
    """All sizes on all numbers of nodes, exact and approximate."""
    return [
        predict(rows, nodes, exact=exact, measured=measured, prices=prices)
        for exact in (True, False)
        for rows in ROWS
        for nodes in NODES
    ]


def tables(record: Mapping[str, Any], prices: PriceTable) -> str:
    """The Markdown between the markers of the page."""
    measured = record["scaling"]["calibration"]
    found = predictions(measured, prices)
    return "\n\n".join(
        [
            "\n".join(_calibration(record)),
            "\n".join(_links(record["scaling"]["links"])),
            "## Prediction: exact\n**Predicted, not measured.** c copies of the rows, where they are faster.",
            "\n".join(_table(found, exact=True)),
            f"## Prediction: approximate\n**Predicted, not measured**; nprobe {NPROBE}.",
            "\n".join(_table(found, exact=False)),
            "## What the predictions assume",
            "\n".join(_assumptions(prices)),
        ]
    )


def _calibration(record: Mapping[str, Any]) -> Iterator[str]:
    machine, measured = record["machine"], record["scaling"]["calibration"]
    yield "## Calibration: measured"
    yield (
        f"{record['measured_on']}, {machine['cores']} cores of {machine['cpu']}; {measured['rows']:,} clustered "
        f"vectors of {measured['dim']}, k = {measured['k']}; load average at the start: "
        f"{machine['load_average_at_start'][0]:.1f}."
    )
    yield ""
    yield "| scaling | precision | rows | ranks | seconds | pairs/s | efficiency |"
    yield "|---|---|---|---|---|---|---|"
    for row in record["scaling"]["cores"]:
        yield (
            f"| {row['kind']} | {row['precision']} | {row['rows']:,} | {row['ranks']} "
            f"| {row['compare_seconds']:.2f} | {row['pairs_per_second']:.3g} | {row['efficiency']:.0%} |"
        )


def _links(links: Mapping[str, Any]) -> Iterator[str]:
    yield "## The model against slowed links: measured"
    if "not_measured" in links:
        yield f"Not measured: {links['not_measured']}."
        return
    yield "| members | rows | link asked, Mbit/s | found, MB/s | found, µs | seconds | model | model is off by |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in links["rows"]:
        yield (
            f"| {row['members']} | {row['rows']:,} | {row['link_mbit'] or 'none'} "
            f"| {row['bytes_per_second'] / 1e6:.1f} | {row['alpha_seconds'] * 1e6:.0f} "
            f"| {row['compare_seconds']:.2f} | {row['model_seconds']:.2f} "
            f"| {row['model_seconds'] / row['compare_seconds'] - 1:+.0%} |"
        )


def _table(found: Sequence[Prediction], *, exact: bool) -> Iterator[str]:
    kind = "c" if exact else "cells"
    yield f"| rows | nodes | {kind} | compute | messages | barriers | I/O | whole | GiB a node | $ | $ spot |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for each in found:
        if each.exact != exact:
            continue
        head = f"| {each.rows:.0e} | {each.nodes:,} | {each.layers if exact else f'{each.cells:,}'} |"
        head = head.replace("e+0", "e")
        if not each.possible:
            yield f"{head} does not fit: {each.node_gib:,.0f} GiB a node | | | | | | | |"
            continue
        parts = (
            each.parts.compute,
            each.parts.communication,
            each.parts.barriers,
            each.io_seconds,
            each.seconds,
        )
        yield (
            f"{head} {' | '.join(map(duration, parts))} | {each.node_gib:.0f} "
            f"| {each.usd[0]:,.0f} | {each.usd[1]:,.0f} |"
        )


def _assumptions(prices: PriceTable) -> Iterator[str]:
    price = prices.price(INSTANCE)
    yield (
        f"- Prices: {INSTANCE} ${price.on_demand} an hour on demand, ${price.spot} spot, of {prices.as_of} "
        f"in {prices.region}. On demand: {prices.source} ({prices.source_url}). Spot: {prices.spot_source}."
    )
    for value, meaning in ASSUMED.values():
        yield f"- {value:g} {meaning}."
    yield f"- Left out: {LEFT_OUT}."


def duration(seconds: float) -> str:
    """For people: ``<0.1 s``, ``1.4 s``, ``12 s``, ``3.1 min``, ``5.2 h``, ``12 d``."""
    if seconds < 0.1:
        return "<0.1 s"
    for limit, unit, name in (
        (120, 1, "s"),
        (7200, 60, "min"),
        (48 * 3600, 3600, "h"),
        (float("inf"), 86400, "d"),
    ):
        if seconds < limit:
            value = seconds / unit
            return f"{value:.0f} {name}" if value >= 10 else f"{value:.2g} {name}"
    raise AssertionError("unreachable")


def draw(found: Sequence[Prediction], path: Path) -> None:
    """Hours over nodes, a line for each number of rows; the same input gives the same file."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams |= {"svg.hashsalt": "scaling", "svg.fonttype": "none"}
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for colour, rows in enumerate(ROWS):
        for exact in (True, False):
            line = [each for each in found if (each.rows, each.exact) == (rows, exact) and each.possible]
            axes.plot(
                [each.nodes for each in line],
                [each.seconds for each in line],
                color=f"C{colour}",
                linestyle="-" if exact else "--",
                marker="o",
                label=f"{rows:.0e}".replace("e+0", "e") + (" exact" if exact else " approximate"),
            )
    axes.set(xscale="log", yscale="log", xlabel=f"nodes ({INSTANCE})", ylabel="seconds, predicted")
    axes.set_xticks(NODES, [f"{nodes:,}" for nodes in NODES])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set_title("PREDICTION of the k-NN graph's time, not a measurement")
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kernel.prediction", description=__doc__)
    parser.add_argument("--measured", type=Path, help="JSON of the benchmark, with part 3")
    options = parser.parse_args()
    if options.measured:
        record = json.loads(options.measured.read_text())
        kept = {name: record[name] for name in ("measured_on", "machine", "versions", "scaling")}
        CALIBRATION.write_text(json.dumps(kept, indent=2) + "\n")
    record, prices = json.loads(CALIBRATION.read_text()), current_prices()
    PAGE.write_text(with_tables(PAGE.read_text(), tables(record, prices)))
    draw(predictions(record["scaling"]["calibration"], prices), PLOT)
    print(f"written: {PAGE.relative_to(ROOT)}, {PLOT.relative_to(ROOT)}")


def with_tables(page: str, made: str) -> str:
    """The page with everything between its markers replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


if __name__ == "__main__":
    main()
