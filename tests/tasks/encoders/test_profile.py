from itertools import product

import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.profile import KmerProfile, ProfileTable
from tasks.encoders.sequences import Sequences

PAIRS = {"A": "T", "C": "G", "G": "C", "T": "A"}


def reverse_complement(read: str) -> str:
    return "".join(PAIRS.get(base, base) for base in reversed(read.upper()))


def plain_profile(read: str, lengths: tuple[int, ...]) -> np.ndarray:
    """The definition, letter by letter."""
    parts = []
    for k in lengths:
        words = ["".join(word) for word in product("ACGT", repeat=k)]
        columns = {word: 0 for word in words if word <= reverse_complement(word)}
        for start in range(len(read) - k + 1):
            word = read[start : start + k].upper()
            if set(word) <= set("ACGT"):
                columns[min(word, reverse_complement(word))] += 1
        counts = np.array(list(columns.values()), dtype=np.float64)
        parts.append(np.sqrt(counts / max(1, counts.sum())))
    return np.concatenate(parts)


def random_read(length: int, alphabet: str = "ACGT", seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list(alphabet), length))


READS = [
    "",
    "ACG",
    "ACGT",
    "AAAAA",
    "ACGTNACGT",
    "NNNNNNNN",
    "acgtnACGTACGTT",
    random_read(150),
    random_read(300, "ACGTN"),
]


@pytest.mark.parametrize("lengths", [(1,), (2, 3), (4, 5), (6,)])
def test_profile_is_its_definition(lengths: tuple[int, ...]) -> None:
    found = ProfileTable(lengths).of(Sequences.from_arrow(pa.array(READS)))
    np.testing.assert_allclose(found, [plain_profile(read, lengths) for read in READS], atol=1e-6)


def test_vectors_are_unit_profiles_of_both_strands() -> None:
    encoder = KmerProfile((4, 5))
    there = encoder.encode(pa.table({"sequence": READS}))
    back = encoder.encode(pa.table({"sequence": [reverse_complement(read) for read in READS]}))
    np.testing.assert_array_equal(there, back)
    np.testing.assert_allclose(np.linalg.norm(there, axis=1), 1, atol=1e-6)
    expected = plain_profile(READS[-1], (4, 5))
    np.testing.assert_allclose(there[-1], expected / np.linalg.norm(expected), atol=1e-6)
    assert (there.dtype, set(there[0])) == (np.float32, {np.float32(648**-0.5)})
