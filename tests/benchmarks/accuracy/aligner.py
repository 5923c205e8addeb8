"""Overlaps found by minimap2 (Li 2018), the tool for that, beside those of the graph."""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.accuracy import minimap
from tests.benchmarks.accuracy.measures import K, TrueOverlaps
from tests.benchmarks.accuracy.reads import Reads

OPTIONS = ("-X", "-k", "13", "-w", "3", "-n", "2", "-m", "25", "-N", "100")
"""All against all, with k-mers short enough for overlaps of 50 bases."""


def overlaps_by_minimap2(reads: Reads, truth: TrueOverlaps) -> dict[str, Any]:
    """Recall of its ten longest overlaps, the share of all overlaps that join one species, and seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        fasta = Path(scratch) / "reads.fa"
        fasta.write_bytes(_fasta(reads))
        started = time.perf_counter()
        lines = minimap.run(*OPTIONS, fasta, fasta)
        seconds = time.perf_counter() - started
    first, second, matching = (np.array([int(line[n]) for line in lines], np.int64) for n in (0, 5, 9))
    other = first != second
    first, second, matching = first[other], second[other], matching[other]
    return {
        "overlap_recall": truth.recall(_best(first, second, matching, truth.queries)),
        "edge_purity": float((reads.species[first] == reads.species[second]).mean()),
        "seconds": seconds,
    }


def _fasta(reads: Reads) -> bytes:
    """The reads, named by their rows."""
    sequences, offsets = reads.sequences.bases.tobytes(), reads.sequences.offsets.tolist()
    return b"".join(
        b">%d\n%s\n" % (row, sequences[begin:end]) for row, (begin, end) in enumerate(pairwise(offsets))
    )


def _best(first: np.ndarray, second: np.ndarray, matching: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Of each query the ten reads with the most matching bases; -1 where there are fewer."""
    read, other = np.concatenate([first, second]), np.concatenate([second, first])
    order = np.lexsort((-np.tile(matching, 2), read))
    read, other = read[order], other[order]
    begins, ends = np.searchsorted(read, queries), np.searchsorted(read, queries, side="right")
    best = np.full((len(queries), K), -1, np.int64)
    for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        found = list(dict.fromkeys(other[begin:end].tolist()))[:K]
        best[row, : len(found)] = found
    return best
