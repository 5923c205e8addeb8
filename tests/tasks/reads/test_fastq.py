"""Reading FASTQ: what is read, what goes to quarantine and why, and that nothing depends on how bytes come."""

from __future__ import annotations

import gzip
import io
import random
from typing import Any

import dnaio
import numpy as np
import pytest

from tasks.errors import InvalidReads
from tasks.reads.block import ReadBlock
from tasks.reads.block_builder import BlockLimits, Reason
from tasks.reads.sources import read_blocks

GOOD = b"@r%d\nACGT\n+\nIIII\n"


class Drip(io.RawIOBase):
    """A stream that gives at most ``limit`` bytes at a time, a random number of them."""

    def __init__(self, body: bytes, *, limit: int, seed: int = 0) -> None:
        self._body = io.BytesIO(body)
        self._limit = limit
        self._random = random.Random(seed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._body.read(min(len(buffer), self._random.randint(1, self._limit)))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def blocks(text: bytes, *, block_records: int = 20_000, offset: int = 33) -> list[ReadBlock]:
    return list(
        read_blocks(
            io.BytesIO(text),
            source="reads.fq",
            quality_offset=offset,
            limits=BlockLimits(records=block_records),
        )
    )


def one_block(text: bytes, *, offset: int = 33) -> ReadBlock:
    (block,) = blocks(text, offset=offset)
    return block


def sequences(block: ReadBlock) -> list[str]:
    text = block.sequence.tobytes().decode()
    return [text[a:b] for a, b in zip(block.offsets[:-1], block.offsets[1:], strict=True)]


def reads(found: list[ReadBlock]) -> list[tuple[int, bytes, str, list[int]]]:
    """Every read, whatever its block."""
    return [
        (int(number), name, sequence, block.quality[start:end].tolist())
        for block in found
        for number, name, sequence, start, end in zip(
            block.record_numbers,
            block.names,
            sequences(block),
            block.offsets[:-1],
            block.offsets[1:],
            strict=True,
        )
    ]


def random_fastq(records: int, *, seed: int, damage: float = 0.0) -> bytes:
    """Records of 1 to 60 bases with awkward qualities ('@' and '+' among them); some with damaged bytes."""
    rng = random.Random(seed)
    text = bytearray()
    for number in range(records):
        length = rng.randint(1, 60)
        record = bytearray(
            b"@r%d some comment\n%s\n+\n%s\n"
            % (
                number,
                bytes(rng.choices(b"ACGTNacgt", k=length)),
                bytes(rng.choices(b"@+!#5AIJ~", k=length)),
            )
        )
        if rng.random() < damage:
            at, width = rng.randrange(len(record)), rng.choice([0, 1, 1, 5, 40])
            record[at : at + width] = bytes(rng.choices(b"\n\nxACGT@+I \t\x00", k=rng.choice([0, 1, 5])))
        text += record
    return bytes(text)


def test_a_record_becomes_bases_phred_and_name() -> None:
    block = one_block(b"@r1 comment\nACGTN\n+\n!5I~#\n")
    assert block.names == [b"r1 comment"]
    assert sequences(block) == ["ACGTN"]
    assert block.quality.tolist() == [0, 20, 40, 93, 2]
    assert block.record_numbers.tolist() == [1]
    assert block.quarantined == []


def test_phred_64_is_taken_off() -> None:
    assert one_block(b"@r\nACGT\n+\n@BhJ\n", offset=64).quality.tolist() == [0, 2, 40, 10]


def test_every_base_code_is_understood() -> None:
    block = one_block(b"@r\nacgtuACGTURYSWKMBDHVNrn.\n+\n" + b"I" * 24 + b"\n")
    assert sequences(block) == ["ACGTTACGTTNNNNNNNNNNNNNN"]


@pytest.mark.parametrize(
    "text",
    [
        b"@a\r\nACGT\r\n+\r\nIIII\r\n@b\r\nGG\r\n+\r\nII\r\n",
        b"@a\nACGT\n+\nIIII\n@b\nGG\n+\nII",
        b"@a\nACGT\n+a\nIIII\n@b\nGG\n+\nII\n",
        b"\n\n@a\nACGT\n+\nIIII\n\n\r\n@b\nGG\n+\nII\n\n\n",
        gzip.compress(b"@a\nACGT\n+\nIIII\n@b\nGG\n+\nII\n"),
        gzip.compress(b"@a\nAC")
        + gzip.compress(b"GT\n+\nIIII\n")
        + gzip.compress(b"@b\nGG\n+\nII\n")
        + b"\0" * 20,
    ],
    ids=["windows", "no last newline", "name in plus line", "blank lines", "gzip", "gzip members"],
)
def test_the_same_reads_however_they_are_written(text: bytes) -> None:
    assert reads(blocks(text)) == [(1, b"a", "ACGT", [40] * 4), (2, b"b", "GG", [40, 40])]


@pytest.mark.parametrize("text", [b"", b"\n\r\n", gzip.compress(b"")], ids=["nothing", "blank", "gzip"])
def test_a_file_without_records_has_no_blocks(text: bytes) -> None:
    assert blocks(text) == []


def test_a_read_of_one_base_and_one_of_a_megabase() -> None:
    text = b"@s\nA\n+\nI\n@l\n" + b"ACGT" * 250_000 + b"\n+\n" + b"I" * 1_000_000 + b"\n"
    assert np.diff(one_block(text).offsets).tolist() == [1, 1_000_000]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"r\nACGT\n+\nIIII\n", Reason.HEADER),
        (b"@r\nACGT\n-\nIIII\n", Reason.PLUS),
        (b"@r\nACGT\n+q\nIIII\n", Reason.OTHER_NAME),
        (b"@r\nACGT\n+\nIII\n", Reason.LENGTHS),
        (b"@r\nACGT\nIIII\n", Reason.PLUS),
        (b"@r\nACGT\n+\n", Reason.LENGTHS),
        (b"@r\n\n+\n\n", Reason.EMPTY),
        (b"@r\nAC T\n+\nIIII\n", Reason.BASES),
        (b"@r\nACXT\n+\nIIII\n", Reason.BASES),
        (b"@r\nAC-T\n+\nIIII\n", Reason.BASES),
        (b"@r\nACGT\n+\nII I\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nII\tI\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nII\x80I\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nII\x7fI\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nII\x1bI\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nII\0I\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nII\x1fI\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nII\x0bI\n", Reason.QUALITY),
        (b"@r\nACGT\n+\nIIII \n", Reason.LENGTHS),
        (b"@r\nACGT\t\n+\nIIII\n", Reason.LENGTHS),
        (b"@r\nA\tGT\n+\nIIII\n", Reason.BASES),
        (b"@r\nA\0GT\n+\nIIII\n", Reason.BASES),
        (b"@r\nACGT\n+r2\nIIII\n", Reason.OTHER_NAME),
        (b"@r x\nACGT\n+r y\nIIII\n", Reason.OTHER_NAME),
        (b"@r\nACGT\n+\nIIIII\n", Reason.LENGTHS),
        (b"@r\nACGT\nACGT\n+\nIIII\n", Reason.PLUS),
        (b"@r\n+\nIIII\n", Reason.PLUS),
        (b"junk\n", Reason.HEADER),
    ],
)
def test_a_bad_record_goes_to_quarantine_and_its_neighbours_do_not(record: bytes, reason: Reason) -> None:
    before = GOOD % 1 + GOOD % 2
    block = one_block(before + record + GOOD % 4 + GOOD % 5)
    (bad,) = block.quarantined
    assert (bad.source, bad.record_number, bad.byte_offset) == ("reads.fq", 3, len(before))
    assert bad.reason == reason
    assert bad.raw.encode("latin-1", errors="replace")[:3] == record[:3]
    assert block.record_numbers.tolist() == [1, 2, 4, 5]
    assert block.names == [b"r1", b"r2", b"r4", b"r5"]
    assert block.slots == 5


@pytest.mark.parametrize("offset", [33, 64])
def test_qualities_below_the_encoding_are_out_of_range(offset: int) -> None:
    block = one_block(b"@r\nAC\n+\n;I\n", offset=offset)
    assert [bad.reason for bad in block.quarantined] == ([Reason.QUALITY] if offset == 64 else [])


@pytest.mark.parametrize("cut", [b"@r", b"@r\n", b"@r\nACGT\n", b"@r\nACGT\n+\n", b"@r\nACGT\n+\nIII"])
def test_a_file_that_ends_within_a_record_says_so(cut: bytes) -> None:
    block = one_block(GOOD % 1 + cut)
    assert block.names == [b"r1"]
    assert [(bad.record_number, bad.reason) for bad in block.quarantined] == [(2, Reason.CUT_OFF)]


def test_neighbouring_bad_records_keep_their_numbers() -> None:
    """Mates are matched by record number, so a bad record must not shift those after it."""
    wrong_length, wrong_base = b"@r\nACGT\n+\nIII\n", b"@r\nAC?T\n+\nIIII\n"
    block = one_block(GOOD % 1 + wrong_length * 2 + wrong_base * 2 + wrong_length + GOOD % 7)
    assert [bad.record_number for bad in block.quarantined] == [2, 3, 4, 5, 6]
    assert block.names == [b"r1", b"r7"]
    assert block.record_numbers.tolist() == [1, 7]


def test_a_quality_line_that_looks_like_a_header_is_not_one() -> None:
    block = one_block(b"@r1\nACGT\n+\n@II\n" + b"@r2\nACGT\n+\n@+II\n")
    assert block.names == [b"r2"]
    assert [bad.raw for bad in block.quarantined] == ["@r1\nACGT\n+\n@II\n"]


def test_raw_text_of_a_bad_record_is_cut_at_4_kib() -> None:
    (bad,) = one_block(b"@r\n" + b"A" * 10_000 + b"\n+\nI\n").quarantined
    assert len(bad.raw) == 4096


def test_blocks_hold_exactly_their_record_slots() -> None:
    text = b"".join(GOOD % n if n % 3 else b"@bad\nA\n+\n\n" for n in range(1, 24))
    found = blocks(text, block_records=5)
    assert [block.slots for block in found] == [5, 5, 5, 5, 3]
    assert [block.first_record for block in found] == [1, 6, 11, 16, 21]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
@pytest.mark.parametrize("seed", range(4))
def test_blocks_and_chunks_never_change_what_is_read(seed: int, compress: Any) -> None:
    text = random_fastq(300, seed=seed, damage=0.1)
    (whole,) = blocks(text)
    assert len(whole.quarantined) > 5
    for block_records, limit in ((1, 4096), (7, 1), (64, 3), (100, 1000)):
        stream: Any = Drip(compress(text), limit=limit, seed=seed)
        limits = BlockLimits(records=block_records)
        found = list(read_blocks(stream, source="reads.fq", quality_offset=33, limits=limits))
        assert all(block.slots == block_records for block in found[:-1])
        assert reads(found) == reads([whole])
        assert [bad for block in found for bad in block.quarantined] == whole.quarantined


@pytest.mark.parametrize("seed", range(20))
def test_every_record_number_is_given_once(seed: int) -> None:
    (block,) = blocks(random_fastq(200, seed=seed, damage=0.3))
    numbers = [*block.record_numbers.tolist(), *(bad.record_number for bad in block.quarantined)]
    assert sorted(numbers) == list(range(1, block.slots + 1))
    offsets = [bad.byte_offset for bad in block.quarantined]
    assert offsets == sorted(offsets)


def test_reads_are_those_of_dnaio() -> None:
    text = random_fastq(2000, seed=1)
    expected = [
        (number, read.name.encode(), read.sequence.upper(), [ord(quality) - 33 for quality in read.qualities])
        for number, read in enumerate(dnaio.open(io.BytesIO(text)), 1)
    ]
    assert reads(blocks(text)) == expected


def test_a_truncated_gzip_names_the_last_good_record() -> None:
    body = gzip.compress(b"".join(GOOD % n for n in range(5000)), mtime=0)
    stream = io.BytesIO(body[: len(body) // 2])
    found = read_blocks(
        stream, source="s3://lake/reads.fq.gz", quality_offset=33, limits=BlockLimits(records=100)
    )
    seen = 0
    with pytest.raises(
        InvalidReads, match=r"s3://lake/reads.fq.gz: the gzip data is cut off; .* number (\d+)"
    ) as error:
        for block in found:
            seen += block.slots
    last_good = int(str(error.value).split("number ")[1].split(".")[0])
    assert seen <= last_good < seen + 100
    assert 1000 < last_good < 5000


def test_a_gzip_with_a_wrong_checksum_is_refused() -> None:
    body = bytearray(gzip.compress(GOOD % 1))
    body[-6] ^= 1
    with pytest.raises(InvalidReads, match=r"the gzip data is damaged \(.*check"):
        blocks(bytes(body))


def test_a_gzip_with_something_behind_it_is_refused() -> None:
    with pytest.raises(InvalidReads, match="something that is not gzip follows"):
        blocks(gzip.compress(GOOD % 1) + b"<html>")


def test_other_compression_is_named() -> None:
    with pytest.raises(InvalidReads, match=r"reads.fq is compressed with bzip2"):
        blocks(b"BZh91AY&SY")


def test_what_never_becomes_fastq_again_stops_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.reads.fastq._RESYNC_BYTES", 1000)
    with pytest.raises(InvalidReads, match=r"from record 2 on \(the last good record is number 1\)"):
        blocks(GOOD % 1 + b">chromosome\n" + b"ACGT\n" * 500)


def test_a_line_without_end_stops_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.reads.lines.LONGEST_LINE_BYTES", 1 << 20)
    with pytest.raises(InvalidReads, match="a line is longer than 1 MiB"):
        blocks(b"@r\n" + b"A" * (5 << 20))


def test_a_second_quality_line_is_a_bad_record_of_its_own() -> None:
    text = GOOD % 1 + b"IIII\n" + GOOD % 3
    block = one_block(text)
    assert block.record_numbers.tolist() == [1, 3]
    assert [(bad.record_number, bad.byte_offset, bad.raw) for bad in block.quarantined] == [
        (2, len(GOOD % 1), "IIII\n")
    ]
