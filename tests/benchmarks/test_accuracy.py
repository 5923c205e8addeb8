"""What of the benchmark can be wrong without anybody seeing it in its table."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.kmer import KmerMlp
from tasks.encoders.sequences import Sequences
from tasks.reads.simulate import random_genomes
from tests.benchmarks.accuracy import genomes, loop
from tests.benchmarks.accuracy.cell import CHAINED, CONTROL, FIRST, graph_facts
from tests.benchmarks.accuracy.genomes import Species, Strain, evenly, stretches
from tests.benchmarks.accuracy.measures import TrueOverlaps, apart
from tests.benchmarks.accuracy.reads import Panel, Reads
from tests.benchmarks.accuracy.tables import goals


def placed(begin: list[int], stretch: list[int], species: list[int], length: int = 100) -> Reads:
    """Reads whose letters do not matter."""
    offsets = np.arange(len(begin) + 1, dtype=np.int64) * length
    sequences = Sequences(np.full(offsets[-1], ord("A"), np.uint8), offsets)
    ids = pa.array([f"r{number}" for number in range(len(begin))])
    return Reads(ids, sequences, np.array(species), np.array(stretch), np.array(begin))


def test_species_are_told_apart_where_their_vectors_are() -> None:
    random = np.random.default_rng(1)
    species = np.repeat([0, 1, 2], 40)
    vectors = (np.eye(3)[species] + 0.05 * random.normal(size=(120, 3))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = apart(vectors, species)
    assert found.first == found.ten == found.purity == 1
    assert found.ari > 0.3  # communities may divide a species, never join two
    mixed = apart(vectors, random.permutation(species))
    assert 0.2 < mixed.ten < 0.45
    assert abs(mixed.ari) < 0.1


def test_overlaps_are_those_of_one_stretch_and_50_bases() -> None:
    reads = placed([0, 50, 51, 300, 0], stretch=[0, 0, 0, 0, 1], species=[0, 0, 0, 0, 1])
    truth = TrueOverlaps.of(reads, seed=1)
    found = dict(zip(truth.queries.tolist(), truth.overlapping, strict=True))
    assert found == {0: {1}, 1: {0, 2}, 2: {1}}
    neighbours = {0: [1, 3], 1: [2, 4], 2: [3, -1]}
    assert truth.recall(np.array([neighbours[row] for row in truth.queries.tolist()])) == 2 / 4


def test_what_is_read_elsewhere_is_not_in_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genomes, "FOLDER", tmp_path)
    monkeypatch.setattr("tests.benchmarks.accuracy.reads.STRETCHES", 2)
    records = [b">%d\n%s\n" % (number, letters * 300) for number, letters in enumerate((b"AC", b"GA", b"TT"))]
    (tmp_path / "one.fa").write_bytes(gzip.compress(b"".join(records)))
    one = Strain("one", "", "")
    panel = Panel.of([Species("x", one, one)], [Species("y", None, one)])
    assert [genome.name for genome in panel.batch[0]] == ["x.0", "x.2"]
    assert panel.test == panel.batch  # other reads of the same
    assert [genome.name for genome in panel.elsewhere[0]] == ["x.1"]
    assert [genome.name for genome in panel.unseen[0]] == ["y.0", "y.1", "y.2"]
    assert [genome.name for genome in stretches(one, "x")] == ["x.0", "x.1", "x.2"]


def test_stretches_are_evenly_spaced() -> None:
    assert evenly(10, 4) == [0, 3, 6, 9]
    assert evenly(3, 8) == [0, 1, 2]


def test_a_turn_finds_chains_of_one_genome_and_all_sources_of_pairs() -> None:
    panel = Panel([[genome] for genome in random_genomes(2, 4_000, seed=1)], [], [], [])
    reads = panel.sequenced(length=150, paired=False, seed=1, coverage=8)
    encoder = KmerMlp.untrained(reads.sequences, seed=1)
    graph = loop.graph_of(encoder, reads)
    facts = graph_facts(graph, reads)
    assert facts["reads_on_chains"] > 0.5
    assert facts["reads_of_their_chains_species"] == 1
    assert facts["chain_n50_bases"] > 300
    assert loop.pairs_of(reads).names == (own := "windows of one read", made_up := "made-up species")
    assert loop.pairs_of(reads, graph.edges).names == (own, "mutual nearest neighbours", made_up)
    mixed = loop.pairs_of(reads, graph.edges, graph.placements)
    assert "far apart on one chain" in mixed.names
    oracle = loop.oracle_pairs(reads, seed=1)
    assert (reads.species[oracle.left] == reads.species[oracle.right]).all()


def rows_of(way: str, values: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "cell": "500 bp paired",
            "seed": seed,
            "way": way,
            "p_at_10": value,
            "ari": value,
            "unseen_p_at_10": value,
        }
        for seed, value in enumerate(values)
    ]


def test_goals_are_means_and_what_is_within_noise_is_not_below() -> None:
    rows = (
        rows_of(CHAINED, [0.87, 0.88, 0.89]) + rows_of(CONTROL, [0.88, 0.885, 0.89]) + rows_of(FIRST, [0.9])
    )
    found = {goal.what.partition(", ")[2]: goal.met for goal in goals(rows)}
    assert found == {
        "P@10": True,
        "ARI": True,
        "P@10 not below the control": True,
        "ARI not below the control": True,
        "unseen P@10 not below the first encoder": False,
    }
