from itertools import product

import numpy as np
import pyarrow as pa
import pytest

from tasks.encoders.hf.translation import longest_open_reading_frames
from tasks.encoders.sequences import Sequences

# As NCBI prints its table 1: bases in the order TCAG.
CODE = dict(
    zip(
        map("".join, product("TCAG", repeat=3)),
        "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG",
        strict=True,
    )
)


def translated(*reads: str) -> list[str]:
    proteins: list[str] = (
        longest_open_reading_frames(Sequences.from_arrow(pa.array(reads))).to_arrow().to_pylist()
    )
    return proteins


def other_strand(read: str) -> str:
    return read[::-1].translate(str.maketrans("ACGT", "TGCA"))


def by_definition(read: str) -> str:
    runs = []
    for strand in (read, other_strand(read)):
        for frame in range(3):
            codons = [strand[i : i + 3] for i in range(frame, len(strand) - 2, 3)]
            runs += "".join(CODE.get(codon, "X") for codon in codons).split("*")
    longest = max(map(len, runs), default=0)
    return min(run for run in runs if len(run) == longest) if longest else "X"


def test_every_length_and_frame_is_translated_as_defined() -> None:
    random = np.random.default_rng(5)
    lengths = [*range(40), *random.integers(40, 700, 60)]
    reads = ["".join(random.choice(list("ACGTN"), n, p=[0.3, 0.2, 0.2, 0.29, 0.01])) for n in lengths]
    proteins = translated(*reads)
    assert proteins == [by_definition(read) for read in reads]
    assert proteins == translated(*map(other_strand, reads))
    assert max(map(len, proteins)) > 100


@pytest.mark.parametrize(
    ("read", "protein"),
    [("ATGGCC", "MA"), ("TAATAATAATAA", "LLLL"), ("", "X"), ("AC", "X"), ("NNNNNN", "XX"), ("atgNCC", "MX")],
)
def test_single_reads(read: str, protein: str) -> None:
    found = translated(read)[0]
    assert found == protein or (len(found) == len(protein) and found < protein)
