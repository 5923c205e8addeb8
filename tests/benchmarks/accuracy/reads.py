"""Simulated reads of the panel: a batch to learn from at some coverage, and reads to be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from tasks.encoders.sequences import Sequences
from tasks.reads.simulate import Genome, Library, SimulatedReads, Truth, simulate
from tests.benchmarks.accuracy.genomes import Species, evenly, stretches

STRETCHES = 8
"""Of each species, 25 kb each: a batch of 2 Mb, so that a turn of the loop takes a minute."""
COVERAGE = 5
INSERT_BASES = {150: 400, 500: 2_000}
"""Mean template of a pair by read length: a common short-read library, and fragments of 2 kb."""
TEST_READS = 500
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
    """The genomes of the benchmark, cut to stretches: of each species those of the batch and those to test on."""

    batch: list[list[Genome]]
    test: list[list[Genome]]

    @classmethod
    def of(cls, species: Sequence[Species]) -> Panel:
        """Of a genome that is trained on and tested on, what is not in the batch is tested."""
        batch, test = [], []
        for one in species:
            tested = stretches(one.tested, one.name)
            if one.trained is not None:
                whole = stretches(one.trained, one.name)
                chosen = evenly(len(whole), STRETCHES)
                batch.append([whole[number] for number in chosen])
                if one.trained == one.tested:
                    tested = [piece for number, piece in enumerate(whole) if number not in chosen]
            test.append(tested)
        return cls(batch, test)

    def sequenced(self, *, length: int, paired: bool, seed: int, coverage: float = COVERAGE) -> Reads:
        """The batch: every stretch at ``coverage``."""
        library = Library(
            templates=0, read_length=length, paired=paired, insert_length=INSERT_BASES[length], seed=seed
        )
        genomes = [genome for of_one in self.batch for genome in of_one]
        bases = coverage * sum(len(genome.sequence) for genome in genomes)
        templates = round(bases / length / (2 if paired else 1))
        return labelled(simulate(genomes, replace(library, templates=templates)))

    def test_reads(self, *, length: int, seed: int) -> Reads:
        """:data:`TEST_READS` single reads of each species."""
        found: list[SimulatedReads] = []
        for number, genomes in enumerate(self.test):
            library = Library(templates=TEST_READS, read_length=length, seed=1000 * seed + number)
            found += simulate(genomes, library)
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
