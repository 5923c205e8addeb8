import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.sequences import Sequences
from tasks.encoders.strands import StrandAverage
from tasks.encoders.transformer import CharacterTransformer
from tasks.errors import InvalidEncoder

READS = pa.table({"id": [1, 2, 3], "sequence": ["ACGTTGCAACGT" * 5, "GGGCCATTTANA" * 3, "A"]})
OTHER_STRAND = pa.table({"sequence": ["ACGTTGCAACGT" * 5, "TNTAAATGGCCC" * 3, "T"]})


@pytest.fixture
def encoder() -> CharacterTransformer:
    model = CharacterTransformer.untrained(Sequences.from_arrow(READS["sequence"]), seed=1)
    model.uri, model.revision = "file:///model", "r1"
    return model


def test_both_strands_get_the_mean_of_both(encoder: CharacterTransformer) -> None:
    average = StrandAverage(encoder, "reverse-complement")
    vectors = average.encode(READS)
    expected = encoder.encode(READS) + encoder.encode(OTHER_STRAND)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert (vectors.dtype, vectors.shape, average.dim) == (np.float32, (3, encoder.dim), encoder.dim)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(vectors, average.encode(OTHER_STRAND), atol=1e-5)
    assert not np.allclose(encoder.encode(READS)[1], encoder.encode(OTHER_STRAND)[1], atol=1e-2)


def test_the_average_is_another_revision(encoder: CharacterTransformer) -> None:
    average = StrandAverage(encoder, "reverse-complement")
    assert (average.uri, average.strand_symmetric) == ("file:///model", True)
    assert average.revision != encoder.revision


def test_another_average_is_refused(encoder: CharacterTransformer) -> None:
    with pytest.raises(InvalidEncoder, match="write average=reverse-complement"):
        StrandAverage(encoder, "median")
