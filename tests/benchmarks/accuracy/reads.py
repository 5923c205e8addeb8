"""Simulated reads of the panel: a batch to learn from at some coverage, and reads to be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tasks.encoders.sequences import Sequences
from tasks.reads.simulate import Genome, Library, SimulatedReads, Truth, simulate
from tests.benchmarks.accuracy.genomes import FOLDER, Species, evenly, stretches
from tests.benchmarks.accuracy.minimap import alike

STRETCHES = 8
"""Of each species, 25 kb each: a batch of 2 Mb, so that a turn of the loop takes a minute."""
COVERAGE = 5
INSERT_BASES = {150: 400, 500: 2_000}
"""Mean template of a pair by read length: a common short-read library, and fragments of 2 kb."""
TEST_READS = 200
"""Of each species, always single: a mate beside it would be an easy neighbour."""


@dataclass(frozen=True)
class Reads:
    """Reads and where they are from.

    :param ids: string array.
    :param species, stretch: numbers, int64; every stretch is of one species.
    :param begin: leftmost base on the stretch, int64.
    """

    ids: pa.Array
    sequences: Sequences
    species: np.ndarray
    stretch: np.ndarray
    begin: np.ndarray

    def __len__(self) -> int:
        return len(self.species)


@dataclass(frozen=True)
class Panel:
    """The sequences of the benchmark, by species.

    A batch of a whole genome would cover whatever is tested; this one covers :data:`STRETCHES` of it. So what the
    batch covers is tested apart from the rest.

    :param batch: what is sequenced for the batch.
    :param test: the same places, of another strain where there is one.
    :param elsewhere: other places, of that strain.
    :param unseen: species of which the batch has nothing.
    """

    batch: list[list[Genome]]
    test: list[list[Genome]]
    elsewhere: list[list[Genome]]
    unseen: list[list[Genome]]

    @classmethod
    def of(cls, trained: Sequence[Species], unseen: Sequence[Species]) -> Panel:
        """Read the genomes."""
        panel = cls([], [], [], [stretches(one.tested, one.name) for one in unseen])
        for one in trained:
            assert one.trained is not None
            whole = stretches(one.trained, one.name)
            chosen = evenly(len(whole), STRETCHES)
            batch = [whole[number] for number in chosen]
            panel.batch.append(batch)
            other = one.trained != one.tested
            panel.test.append(alike(batch, FOLDER / f"{one.tested.name}.fa") if other else batch)
            rest = (piece for number, piece in enumerate(whole) if number not in chosen)
            panel.elsewhere.append(stretches(one.tested, one.name) if other else [*rest])
        return panel

    def sequenced(self, *, length: int, paired: bool, seed: int, coverage: float = COVERAGE) -> Reads:
        """The batch: every stretch at ``coverage``."""
        library = Library(
            templates=0, read_length=length, paired=paired, insert_length=INSERT_BASES[length], seed=seed
        )
        genomes = [genome for of_one in self.batch for genome in of_one]
        bases = coverage * sum(len(genome.sequence) for genome in genomes)
        templates = round(bases / length / (2 if paired else 1))
        return labelled(simulate(genomes, replace(library, templates=templates)))


def to_tell_apart(sequences: Sequence[Sequence[Genome]], *, length: int, seed: int) -> Reads:
    """Up to :data:`TEST_READS` single reads of each species, no two of which overlap.

    Reads of whole genomes hardly do, at so few; of stretches, overlaps would be the easiest of neighbours.
    """
    found: list[SimulatedReads] = []
    for number, genomes in enumerate(sequences):
        library = Library(templates=4 * TEST_READS, read_length=length, seed=1000 * seed + number)
        (file,) = simulate(genomes, library)
        apart = np.random.default_rng(seed).permutation(_without_overlaps(labelled([file])))[:TEST_READS]
        found.append(
            SimulatedReads([file.names[row] for row in apart], file.sequences[apart], file.qualities[apart])
        )
    return labelled(found)


def labelled(files: Sequence[SimulatedReads]) -> Reads:
    """The reads of all files, one after the other, with the truth that their names tell."""
    names = [name for file in files for name in file.names]
    rows = np.concatenate([file.sequences for file in files])
    truth = [Truth.from_name(name) for name in names]
    _, stretch = np.unique([one.genome for one in truth], return_inverse=True)
    _, species = np.unique([one.genome.rpartition(".")[0] for one in truth], return_inverse=True)
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
    begin = np.array([one.position for one in truth], dtype=np.int64)
    return Reads(pa.array(names), Sequences(rows.ravel(), offsets), species, stretch, begin)


def _without_overlaps(reads: Reads) -> np.ndarray:
    """Rows of reads of which none overlaps another: the first of a stretch, the next that begins beyond it, …"""
    kept = []
    stretch, end = -1, 0
    for row in np.lexsort((reads.begin, reads.stretch)).tolist():
        if reads.stretch[row] != stretch or reads.begin[row] >= end:
            kept.append(row)
            stretch, end = reads.stretch[row], reads.begin[row] + reads.sequences.lengths[row]
    return np.array(kept)
