"""One cell of the benchmark: a read length, single or paired, a seed; every way to embed its reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.chains import n50
from tasks.encoders.kmer import KmerMlp
from tasks.encoders.profile import KmerProfile
from tasks.encoders.sequences import Sequences
from tasks.learning.pairs import Mixture
from tests.benchmarks.accuracy import loop
from tests.benchmarks.accuracy.aligner import overlaps_by_minimap2
from tests.benchmarks.accuracy.genomes import TRAINED, UNSEEN
from tests.benchmarks.accuracy.measures import TrueOverlaps, apart, nearest
from tests.benchmarks.accuracy.reads import Panel, Reads, to_tell_apart

TETRANUCLEOTIDES = "tetranucleotide frequencies"
FIRST = "first encoder"
CONTROL = "control: same steps, no graph"
RAW = "k-NN loop"
CHAINED = "chained loop"
CHAINED_TWICE = "chained loop, two turns"
ORACLE = "oracle: anywhere on the genome"
MINIMAP2 = "minimap2"
WAYS = (TETRANUCLEOTIDES, FIRST, CONTROL, RAW, CHAINED, CHAINED_TWICE, ORACLE, MINIMAP2)

Encode = Callable[[Sequences], np.ndarray]


@dataclass(frozen=True)
class Cell:
    """What is sequenced."""

    length: int
    paired: bool
    seed: int

    @property
    def name(self) -> str:
        """Without the seed: of what the mean is taken."""
        return f"{self.length} bp {'paired' if self.paired else 'single'}"


@dataclass(frozen=True)
class Reading:
    """The reads of a cell: a batch to learn from, and those that are told apart, by where they are from."""

    batch: Reads
    test: Reads
    elsewhere: Reads
    unseen: Reads
    truth: TrueOverlaps

    @classmethod
    def of(cls, cell: Cell, panel: Panel) -> Reading:
        """Simulate them."""
        batch = panel.sequenced(length=cell.length, paired=cell.paired, seed=cell.seed)
        others = (
            to_tell_apart(sequences, length=cell.length, seed=cell.seed)
            for sequences in (panel.test, panel.elsewhere, panel.unseen)
        )
        return cls(batch, *others, TrueOverlaps.of(batch, seed=cell.seed))


def measure(cell: Cell) -> list[dict[str, Any]]:
    """A row for every way; ``seconds`` are those of the way alone, beyond the encoder that it starts from."""
    reading = Reading.of(cell, _panel())
    batch = reading.batch
    rows: list[dict[str, Any]] = []

    def row(way: str, measures: dict[str, Any], seconds: float, **more: Any) -> None:
        rows.append(
            {"cell": cell.name, "seed": cell.seed, "way": way, **measures, "seconds": seconds, **more}
        )
        print(shown(rows[-1]), flush=True)

    def train(parent: KmerMlp, way: str, pairs: Any, graph: loop.Graph | None = None) -> KmerMlp:
        started = time.perf_counter()
        encoder = loop.trained_on(parent, pairs, seed=cell.seed)
        seconds = time.perf_counter() - started
        more: dict[str, Any] = {"pairs": _shares(pairs)} if isinstance(pairs, Mixture) else {}
        if graph is not None:
            seconds += sum(graph.seconds.values())
            more |= {"graph": graph_facts(graph, batch)}
        row(way, _measured(encoder.encode_sequences, reading), seconds, **more)
        return encoder

    profile = KmerProfile([4])
    started = time.perf_counter()
    profile.encode(pa.table({"sequence": batch.sequences.to_arrow()}))
    seconds = time.perf_counter() - started
    encode: Encode = lambda sequences: profile.encode(pa.table({"sequence": sequences.to_arrow()}))  # noqa: E731
    row(TETRANUCLEOTIDES, _measured(encode, reading), seconds)

    started = time.perf_counter()
    first = loop.first_encoder(batch, seed=cell.seed)
    row(FIRST, _measured(first.encode_sequences, reading), time.perf_counter() - started)
    graph = loop.graph_of(first, batch)
    train(first, CONTROL, loop.pairs_of(batch))
    train(first, RAW, loop.pairs_of(batch, graph.edges), graph)
    chained = train(first, CHAINED, loop.pairs_of(batch, graph.edges, graph.placements), graph)
    again = loop.graph_of(chained, batch)
    train(chained, CHAINED_TWICE, loop.pairs_of(batch, again.edges, again.placements), again)
    train(first, ORACLE, loop.oracle_pairs(batch, seed=cell.seed))
    found = overlaps_by_minimap2(batch, reading.truth)
    row(MINIMAP2, {name: found[name] for name in ("overlap_recall", "edge_purity")}, found["seconds"])
    return rows


@cache
def _panel() -> Panel:
    """Read once in a process, which measures several cells."""
    return Panel.of(TRAINED, UNSEEN)


def graph_facts(graph: loop.Graph, reads: Reads) -> dict[str, Any]:
    """How far chains lead, how many reads are on them, and what of the graph is of one species."""
    placed = graph.placements
    spans = np.zeros(int(placed.chain.max(initial=-1)) + 1, np.int64)
    np.maximum.at(spans, placed.chain, placed.offset + reads.sequences.lengths[placed.row])
    species = np.full((len(spans), int(reads.species.max()) + 1), 0)
    np.add.at(species, (placed.chain, reads.species[placed.row]), 1)
    edges = graph.edges
    return {
        "edges_of_one_species": float((reads.species[edges.query] == reads.species[edges.neighbour]).mean()),
        "reads_on_chains": len(placed.row) / len(reads),
        "reads_of_their_chains_species": float(species.max(axis=1).sum() / max(1, len(placed.row))),
        "chain_n50_bases": n50(spans),
        "seconds": {name: round(seconds, 2) for name, seconds in graph.seconds.items()},
    }


def shown(row: dict[str, Any]) -> str:
    """One line of progress."""
    numbers = " ".join(
        f"{name} {value:.3f}" for name, value in row.items() if isinstance(value, float) and name != "seconds"
    )
    return f"{row['cell']}, seed {row['seed']}: {row['way']}: {numbers}, {row['seconds']:.1f} s"


def _measured(encode: Encode, reading: Reading) -> dict[str, float]:
    """All measures of one encoder."""
    found = apart(encode(reading.test.sequences), reading.test.species)
    elsewhere = apart(encode(reading.elsewhere.sequences), reading.elsewhere.species)
    unseen = apart(encode(reading.unseen.sequences), reading.unseen.species)
    neighbours, _ = nearest(encode(reading.batch.sequences), reading.truth.queries)
    return {
        "p_at_1": found.first,
        "p_at_10": found.ten,
        "ari": found.ari,
        "ari_k_means": found.ari_k_means,
        "edge_purity": found.purity,
        "overlap_recall": reading.truth.recall(neighbours),
        "elsewhere_p_at_10": elsewhere.ten,
        "elsewhere_ari": elsewhere.ari,
        "unseen_p_at_10": unseen.ten,
        "unseen_ari": unseen.ari,
    }


def _shares(pairs: Mixture) -> dict[str, float]:
    return {
        " + ".join(source.names): round(share, 4)
        for source, share in zip(pairs.sources, pairs.shares, strict=True)
    }
