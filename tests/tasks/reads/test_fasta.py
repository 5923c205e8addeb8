"""Reading FASTA: wrapped sequences, bad records, blocks."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest

from tasks.errors import InvalidReads
from tasks.reads.block import ReadBlock
from tasks.reads.block_builder import BlockLimits, Reason
from tasks.reads.sources import read_blocks


def blocks(text: bytes, **limits: int) -> list[ReadBlock]:
    stream = io.BytesIO(text)
    return list(read_blocks(stream, source="reads.fa", quality_offset=33, limits=BlockLimits(**limits)))


def reads(found: list[ReadBlock]) -> list[tuple[int, bytes, str]]:
    return [
        (int(number), name, block.sequence[start:end].tobytes().decode())
        for block in found
        for number, name, start, end in zip(
            block.record_numbers, block.names, block.offsets[:-1], block.offsets[1:], strict=True
        )
    ]


@pytest.mark.parametrize(
    "text",
    [
        b">a x\nACGTAC\n>b\nGG\n",
        b">a x\nACG\nTA\nC\n>b\nG\nG",
        b"\r\n>a x\r\nACG\r\nTAC\r\n>b\r\nGG\r\n",
        b"\n\n>a x\n\nacg\n\nuac\n>b\ngg\n\n\n",
    ],
    ids=["plain", "wrapped", "windows", "blank lines, lower case, RNA"],
)
def test_the_same_reads_however_they_are_written(text: bytes) -> None:
    (block,) = blocks(text)
    assert reads([block]) == [(1, b"a x", "ACGTAC"), (2, b"b", "GG")]
    assert not block.qualities_known
    assert block.quality.tolist() == [40] * 8
    assert block.quarantined == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b">r\n", Reason.EMPTY),
        (b">r\n\n\n", Reason.EMPTY),
        (b">r\nACGT\nAC-T\n", Reason.BASES),
        (b">protein\nMKLVE\n", Reason.BASES),
        (b">r\nAC GT\n", Reason.BASES),
        (b">r\n;comment\nACGT\n", Reason.BASES),
    ],
)
def test_a_bad_record_goes_to_quarantine_and_its_neighbours_do_not(record: bytes, reason: Reason) -> None:
    before = b">r1\nACGT\nAC\n>r2\nG\n"
    (block,) = blocks(before + record + b">r4\nTT\n")
    (bad,) = block.quarantined
    assert (bad.source, bad.record_number, bad.byte_offset, bad.reason) == (
        "reads.fa",
        3,
        len(before),
        reason,
    )
    assert bad.raw.encode() == record
    assert reads([block]) == [(1, b"r1", "ACGTAC"), (2, b"r2", "G"), (4, b"r4", "TT")]


def test_the_last_record_may_be_bad() -> None:
    (block,) = blocks(b">r1\nACGT\n>r2")
    assert [(bad.record_number, bad.reason) for bad in block.quarantined] == [(2, Reason.EMPTY)]


def test_a_read_of_a_megabase_in_lines_of_sixty() -> None:
    rng = np.random.default_rng(1)
    bases = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, 1_000_000)].tobytes()
    wrapped = b"\n".join(bases[at : at + 60] for at in range(0, len(bases), 60))
    assert reads(blocks(b">s\nA\n>l\n" + wrapped + b"\n>t\nC")) == [
        (1, b"s", "A"),
        (2, b"l", bases.decode()),
        (3, b"t", "C"),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_blocks_never_change_what_is_read(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(seed)
    text = b"".join(
        b">r%d\n%s\n"
        % (
            n,
            b"\n".join(
                bytes(rng.choices(b"ACGTNac-", [9] * 7 + [0.1], k=rng.randint(0, 30)))
                for _ in range(rng.randint(0, 4))
            ),
        )
        for n in range(200)
    )
    (whole,) = blocks(text)
    assert whole.slots == 200
    assert len(whole.quarantined) > 5
    monkeypatch.setattr("tasks.reads.fasta._LINES_AT_ONCE", 2)
    for records, bases in ((1, 1000), (7, 10**6), (1000, 40)):
        found = blocks(text, records=records, bases=bases)
        assert reads(found) == reads([whole])
        assert [bad for block in found for bad in block.quarantined] == whole.quarantined
        assert all(block.slots <= records and len(block.sequence) < bases + 120 for block in found)


def test_a_record_without_end_stops_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.reads.fasta.LONGEST_LINE_BYTES", 1 << 20)
    monkeypatch.setattr("tasks.reads.fasta.BLOCK_BASES", 1 << 18)
    with pytest.raises(InvalidReads, match=r"reads.fa: a record is longer than 1 MiB; .* number 1\."):
        blocks(b">a\nACGT\n>b\n" + (b"ACGT" * 15 + b"\n") * 50_000)
