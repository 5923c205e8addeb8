"""Reading BAM, written by htslib."""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysam
import pytest

from tasks.errors import InvalidReads
from tasks.reads.block import ReadBlock
from tasks.reads.block_builder import BlockLimits, Reason
from tasks.reads.sources import read_blocks, sample_blocks

HEADER = {"HD": {"VN": "1.6"}, "SQ": [{"SN": "chr1", "LN": 1000}]}
Writer = Callable[..., bytes]


@pytest.fixture
def bam(tmp_path: Path) -> Writer:
    """``bam({"name": ..., "bases": ..., "quality": ..., **fields}, ...)``: the bytes of a BAM file."""

    def write(*records: dict[str, Any]) -> bytes:
        path = tmp_path / "reads.bam"
        header = pysam.AlignmentHeader.from_dict(HEADER)
        with pysam.AlignmentFile(str(path), "wb", header=header) as file:
            for number, fields in enumerate(records, 1):
                record = pysam.AlignedSegment(header)
                record.query_name = fields.get("name", f"r{number}")
                record.flag = fields.get("flag", 4)
                record.query_sequence = fields.get("bases", "ACGT")
                if "cigar" in fields:
                    record.reference_id, record.reference_start = 0, 10
                    record.cigarstring = fields["cigar"]
                quality = fields.get("quality", "I" * len(fields.get("bases", "ACGT")))
                record.query_qualities = pysam.qualitystring_to_array(quality) if quality else None
                record.set_tag("RG", "lane1")
                file.write(record)
        return path.read_bytes()

    return write


def blocks(body: bytes, **limits: int) -> list[ReadBlock]:
    stream = io.BytesIO(body)
    return list(read_blocks(stream, source="reads.bam", quality_offset=33, limits=BlockLimits(**limits)))


def reads(found: list[ReadBlock]) -> list[tuple[int, bytes, str, list[int]]]:
    return [
        (
            int(number),
            name,
            block.sequence[start:end].tobytes().decode(),
            block.quality[start:end].tolist(),
        )
        for block in found
        for number, name, start, end in zip(
            block.record_numbers, block.names, block.offsets[:-1], block.offsets[1:], strict=True
        )
    ]


def test_unaligned_reads_as_they_are(bam: Writer) -> None:
    (block,) = blocks(bam({"bases": "ACGTNRY", "quality": "!5I~#II"}, {"bases": "A", "quality": "J"}))
    assert reads([block]) == [(1, b"r1", "ACGTNNN", [0, 20, 40, 93, 2, 40, 40]), (2, b"r2", "A", [41])]
    assert block.qualities_known


def test_aligned_reads_are_on_their_own_strand_once(bam: Writer) -> None:
    body = bam(
        {"bases": "AACG", "quality": "!5I~", "flag": 16, "cigar": "1S3M"},
        {"name": "r1", "flag": 0x100, "cigar": "4M"},
        {"name": "r1", "flag": 0x800, "cigar": "2H4M"},
        {"bases": "GGC", "flag": 0, "cigar": "3M"},
        {"bases": "GGC", "flag": 0, "cigar": "1H3M"},
    )
    (block,) = blocks(body)
    assert reads([block]) == [(1, b"r1", "CGTT", [93, 40, 20, 0]), (2, b"r4", "GGC", [40] * 3)]
    assert [(bad.record_number, bad.reason) for bad in block.quarantined] == [(3, Reason.CLIPPED)]


def test_reads_without_qualities_are_known_as_such(bam: Writer) -> None:
    (block,) = blocks(bam({"quality": None}, {"quality": None}))
    assert not block.qualities_known
    assert block.quality.tolist() == [40] * 8


def test_mates_are_named_and_read_as_pairs(bam: Writer) -> None:
    body = bam(
        *({"name": f"r{n}", "flag": 4 | 1 | (0x40 if m == 1 else 0x80)} for n in (1, 2) for m in (1, 2))
    )
    (mates,) = sample_blocks([("p.bam", io.BytesIO(body))], layout="interleaved", quality_offset=33)
    assert [block.names for block in mates] == [[b"r1/1", b"r2/1"], [b"r1/2", b"r2/2"]]
    turned = bam({"name": "r1", "flag": 4 | 1 | 0x80}, {"name": "r1", "flag": 4 | 1 | 0x40})
    with pytest.raises(InvalidReads, match="does not hold one pair after the other: record 1"):
        list(sample_blocks([("p.bam", io.BytesIO(turned))], layout="interleaved", quality_offset=33))


def test_bad_records_go_to_quarantine_with_their_place(bam: Writer) -> None:
    body = bam({}, {"bases": "AC=T"}, {"quality": None}, {}, {"bases": ""}, {})
    text = bytearray(gzip.decompress(body))
    offsets = record_offsets(text)
    text[offsets[3] + 12] = 200  # the name's length
    (block,) = blocks(bytes(text))
    assert [(bad.record_number, bad.byte_offset, bad.reason) for bad in block.quarantined] == [
        (2, offsets[1], Reason.BASES),
        (3, offsets[2], Reason.SOME_QUALITIES),
        (4, offsets[3], Reason.RECORD),
        (5, offsets[4], Reason.EMPTY),
    ]
    assert block.record_numbers.tolist() == [1, 6]
    assert "r2" in block.quarantined[0].raw


def record_offsets(text: bytes) -> list[int]:
    """Where the records of an uncompressed BAM with one reference begin."""
    (size,) = struct.unpack_from("<i", text, 4)
    (name,) = struct.unpack_from("<i", text, 12 + size)
    offsets = [12 + size + 4 + name + 4]
    while offsets[-1] < len(text):
        (size,) = struct.unpack_from("<i", text, offsets[-1])
        offsets.append(offsets[-1] + 4 + size)
    return offsets[:-1]


def test_blocks_never_change_what_is_read(bam: Writer) -> None:
    body = bam(*({"bases": "ACGT" * (n % 7)} for n in range(60)))
    (whole,) = blocks(body)
    assert len(whole.quarantined) == 9
    for limits in ({"records": 1}, {"records": 7}, {"bases": 30}):
        found = blocks(body, **limits)
        assert len(found) > 5
        assert reads(found) == reads([whole])
        assert [bad for block in found for bad in block.quarantined] == whole.quarantined


@pytest.mark.parametrize("kept", [5, 30, 40, 80, 200, 300])
def test_data_that_ends_too_early_is_refused_after_the_whole_records(bam: Writer, kept: int) -> None:
    text = gzip.decompress(bam(*({"bases": "ACGT" * 10} for _ in range(9))))
    whole = sum(offset <= kept for offset in record_offsets(text)[1:])
    found, seen = read_blocks(io.BytesIO(text[:kept]), source="reads.bam", quality_offset=33), 0
    with pytest.raises(InvalidReads, match=f"reads.bam: .* the last record before it is number {whole}"):
        for block in found:
            seen += block.slots
    assert seen == whole


def test_damage_is_seen(bam: Writer) -> None:
    body = bam(*({} for _ in range(50)))
    with pytest.raises(
        InvalidReads, match=r"ends every BGZF file is missing: the file is cut off; .* number 50"
    ):
        blocks(body[:-28])
    text = bytearray(gzip.decompress(body))
    struct.pack_into("<i", text, record_offsets(text)[3], -7)
    with pytest.raises(InvalidReads, match="the data is damaged at record 4, byte"):
        blocks(bytes(text))
