"""The vectors that everything here is measured on, made once from a seed and kept as embedding stores.

``clustered``
    50 rows in each cluster, however many rows there are: cosines are near 0.67 within a cluster and near 0
    between two.
``kmer-mlp``
    Simulated reads of 500 bases of five genomes, 25 times each base at 50,000 reads, encoded by a ``kmer-mlp``
    trained on them as the pipeline trains its first version.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from hpc_jobs import store

SEED = 5
ROWS_PER_CLUSTER = 50
NOISE = 0.7
"""Of a row, against a centre of the same length: the cosine of two rows of a cluster is about 1 / (1 + 0.7^2)."""
READ_BASES = 500
_FORMAT = 1  # of the stores below; another number makes them anew


def make_store(folder: Path, data: str, *, rows: int, dim: int) -> Path:
    """The directory of the embedding store with these vectors, float32 of length 1; made where it is not there."""
    directory = folder / f"{data}-{rows}-{dim}-{SEED}-{_FORMAT}"
    if not (directory / store.MANIFEST).exists():
        shutil.rmtree(directory, ignore_errors=True)
        ids = pa.array([f"read:{row + 1}" for row in range(rows)], pa.string())
        vectors = DATA_SETS[data](rows, dim)
        store.write_store(directory, ids, vectors, encoder_uri=data, encoder_revision=str(SEED))
    return directory


def clustered(rows: int, dim: int) -> np.ndarray:
    """See above: float32 (rows, dim)."""
    random = np.random.default_rng((SEED, rows, dim))
    centres = random.standard_normal((max(1, rows // ROWS_PER_CLUSTER), dim), dtype=np.float32)
    vectors = NOISE * random.standard_normal((rows, dim), dtype=np.float32)
    vectors += centres[random.integers(0, len(centres), rows)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def kmer_mlp(rows: int, dim: int) -> np.ndarray:
    """See above: float32 (rows, dim)."""
    import torch

    from tasks.encoders.kmer import KmerMlp
    from tasks.encoders.sequences import Sequences
    from tasks.learning.contrastive import train
    from tasks.learning.pairs import ReadWindows
    from tasks.learning.plans import first_plan
    from tasks.reads.simulate import Library, random_genomes, simulate

    genomes = random_genomes(5, 200_000, seed=SEED)
    [reads] = simulate(genomes, Library(templates=rows, read_length=READ_BASES, seed=SEED))
    sequences = Sequences.from_arrow(pa.array([line.tobytes().decode() for line in reads.sequences]))
    plan = first_plan(KmerMlp)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = KmerMlp(dim=dim)
    profile = KmerMlp.untrained(sequences, seed=SEED)  # of 128 components, for what it knows of the profiles
    model.centre.copy_(profile.centre)
    model.scale.copy_(profile.scale)
    train(
        model, ReadWindows(sequences), replace(plan, steps=min(plan.steps, rows // 50)), report=lambda _: None
    )
    return model.encode_sequences(sequences)


DATA_SETS: dict[str, Callable[[int, int], np.ndarray]] = {"clustered": clustered, "kmer-mlp": kmer_mlp}
