from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.encoders.kmer import KmerMlp, profiles
from tasks.encoders.sequences import Sequences

PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}


def reverse_complement(read: str) -> str:
    return "".join(PAIRS.get(base, base) for base in reversed(read))


def plain_profile(read: str) -> np.ndarray:
    """The definition, letter by letter."""
    parts = []
    for k in (4, 5):
        words = ["".join(word) for word in product("ACGT", repeat=k)]
        columns = {word: 0 for word in words if word <= reverse_complement(word)}
        for start in range(len(read) - k + 1):
            word = read[start : start + k].upper()
            if set(word) <= set("ACGT"):
                columns[min(word, reverse_complement(word))] += 1
        counts = np.array(list(columns.values()), dtype=np.float64)
        parts.append(np.sqrt(counts / max(1, counts.sum())))
    return np.concatenate(parts)


def sequences(*reads: str) -> Sequences:
    return Sequences.from_arrow(pa.array(reads))


def random_read(length: int, alphabet: str = "ACGT", seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(alphabet), length))


@pytest.mark.parametrize(
    "read",
    [
        "",
        "ACG",
        "ACGT",
        "AAAAA",
        "ACGTNACGT",
        "NNNNNNNN",
        "acgtnACGTACGTT",
        random_read(150),
        random_read(300, "ACGTN"),
    ],
)
def test_profile_is_its_definition(read: str) -> None:
    np.testing.assert_allclose(profiles(sequences(read))[0], plain_profile(read), atol=1e-6)


def test_both_strands_have_one_vector() -> None:
    read = random_read(120, "ACGTN")
    model = KmerMlp.untrained(sequences(random_read(90, seed=1), random_read(90, seed=2)), seed=1)
    there, back = model.encode_sequences(sequences(read, reverse_complement(read)))
    np.testing.assert_allclose(there, back, atol=1e-6)


def test_every_read_gets_a_unit_vector() -> None:
    reads = pa.table({"sequence": ["", "A", "NNNN", random_read(150)], "read_id": ["1", "2", "3", "4"]})
    vectors = KmerMlp.untrained(sequences(random_read(500)), seed=1).encode(reads)
    assert vectors.shape == (4, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_batches_do_not_change_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = sequences(*(random_read(100, seed=seed) for seed in range(7)))
    model = KmerMlp.untrained(reads, seed=1)
    whole = model.encode_sequences(reads)
    monkeypatch.setattr("tasks.encoders.kmer.BATCH_READS", 3)
    np.testing.assert_allclose(model.encode_sequences(reads), whole, atol=1e-6)


def test_no_reads_no_vectors() -> None:
    assert KmerMlp().encode(pa.table({"sequence": pa.array([], pa.string())})).shape == (0, 128)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    reads = sequences(random_read(100), random_read(80, seed=1))
    model = KmerMlp.untrained(reads, seed=3)
    model.save(tmp_path)
    np.testing.assert_array_equal(
        KmerMlp.load(tmp_path).encode_sequences(reads), model.encode_sequences(reads)
    )


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (KmerMlp.untrained(sequences(random_read(99)), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.layers[0].weight, again.layers[0].weight)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
