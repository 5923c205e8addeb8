import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.sequences import COMPLEMENT
from tasks.encoders.sketch import KmerSketch

WORD = 2**64 - 1


def plain_sketch(read: str, dim: int, k: int) -> np.ndarray:
    """The definition: canonical k-mers as numbers (A=0 C=1 G=2 T=3), SplitMix64, column by the upper half."""
    vector = np.zeros(dim)
    for start in range(len(read) - k + 1):
        codes = ["ACGT".find(base) for base in read[start : start + k].upper()]
        if min(codes) < 0:
            continue
        forward = sum(code << 2 * place for place, code in enumerate(reversed(codes)))
        reverse = sum((3 - code) << 2 * place for place, code in enumerate(codes))
        value = (min(forward, reverse) + 0x9E3779B97F4A7C15) & WORD
        value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & WORD
        value = ((value ^ value >> 27) * 0x94D049BB133111EB) & WORD
        value ^= value >> 31
        vector[(value >> 32) * dim >> 32] += 1 - 2 * (value & 1)
    return vector / np.linalg.norm(vector) if vector.any() else np.full(dim, dim**-0.5)


def random_reads(*lengths: int, alphabet: str = "ACGT") -> list[str]:
    random = np.random.default_rng(0)
    return ["".join(random.choice(list(alphabet), length)) for length in lengths]


@pytest.mark.parametrize(("dim", "k"), [(256, 15), (100, 4), (8, 31)])
def test_sketch_is_its_definition(dim: int, k: int) -> None:
    reads = [*random_reads(150, 31, 14), *random_reads(200, alphabet="ACGTNacgt"), "", "N" * 40]
    vectors = KmerSketch(dim=dim, k=k).encode(pa.table({"sequence": reads}))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [plain_sketch(read, dim, k) for read in reads], atol=1e-6)


def test_both_strands_have_one_vector() -> None:
    reads = random_reads(150, 90)
    other = [COMPLEMENT[np.frombuffer(read[::-1].encode(), np.uint8)].tobytes().decode() for read in reads]
    encoder = KmerSketch(dim=256, k=16)
    np.testing.assert_array_equal(
        encoder.encode(pa.table({"sequence": reads})), encoder.encode(pa.table({"sequence": other}))
    )


def test_similarity_estimates_the_shared_kmers() -> None:
    """Reads of 150 bases that overlap by half share 61 of 136 15-mers, others none; the error is about 1/16."""
    fragments = random_reads(*[225] * 200)
    encoder = KmerSketch(dim=256, k=15)
    left = encoder.encode(pa.table({"sequence": [fragment[:150] for fragment in fragments]}))
    right = encoder.encode(pa.table({"sequence": [fragment[75:] for fragment in fragments]}))
    scores = left @ right.T
    assert np.diag(scores).mean() == pytest.approx(61 / 136, abs=0.02)
    others = scores[~np.eye(200, dtype=bool)]
    assert others.mean() == pytest.approx(0, abs=0.005)
    assert others.std() == pytest.approx(1 / 16, rel=0.1)
