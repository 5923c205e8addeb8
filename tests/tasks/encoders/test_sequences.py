import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.sequences import Sequences


def texts(sequences: Sequences) -> list[str]:
    return [
        sequences.bases[start:stop].tobytes().decode()
        for start, stop in zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True)
    ]


READS = ["ACGT", "", "GGGTTT", "NACG"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(READS),
        pa.array(READS, type=pa.large_string()),
        pa.chunked_array([READS[:1], READS[1:]]),
        pa.array(["before", *READS, "after"]).slice(1, 4),
    ],
    ids=["string", "large", "chunked", "sliced"],
)
def test_every_string_column_gives_its_sequences(column: pa.Array) -> None:
    assert texts(Sequences.from_arrow(column)) == READS


def test_an_empty_column_has_no_sequences() -> None:
    assert len(Sequences.from_arrow(pa.array([], pa.string()))) == 0
    assert len(Sequences.from_arrow(pa.chunked_array([], pa.string()))) == 0


def test_nulls_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 sequences are null"):
        Sequences.from_arrow(pa.array(["A", None]))


def test_windows_of_either_strand() -> None:
    reads = Sequences.from_arrow(pa.array(READS))
    cut = reads.windows(
        np.array([0, 2, 2, 3]),
        np.array([1, 2, 2, 0]),
        np.array([2, 3, 3, 4]),
        np.array([False, False, True, True]),
    )
    assert texts(cut) == ["CG", "GTT", "AAC", "CGTN"]


def test_taking_slicing_and_joining() -> None:
    reads = Sequences.from_arrow(pa.array(READS))
    assert texts(reads.take(np.array([2, 0, 0]))) == ["GGGTTT", "ACGT", "ACGT"]
    assert texts(reads[2:9]) == READS[2:]
    assert texts(reads[3:3]) == []
    assert texts(Sequences.concatenate([reads[2:3], reads[:2]])) == ["GGGTTT", "ACGT", ""]
