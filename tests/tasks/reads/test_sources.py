"""A sample's reads part by part, whatever its files look like, and nothing lost when they are broken."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
from collections.abc import Sequence

import pytest
from backports import zstd

from tasks.errors import InvalidInput, InvalidReads, StorageError
from tasks.reads.block import ReadBlock
from tasks.reads.block_builder import BlockLimits
from tasks.reads.sources import read_blocks, sample_blocks, verified

Record = tuple[str, int, int, bytes, bytes]


def parts(
    *files: bytes, layout: str, limits: BlockLimits | None = None
) -> tuple[list[tuple[ReadBlock, ...]], str]:
    """Every part that is given, and the error that follows, if any."""
    named = [(f"file{number}", io.BytesIO(body)) for number, body in enumerate(files, 1)]
    found = []
    try:
        for mates in sample_blocks(named, layout=layout, quality_offset=33, limits=limits or BlockLimits()):
            found.append(mates)
    except InvalidReads as error:
        return found, str(error)
    return found, ""


def accounted(found: Sequence[tuple[ReadBlock, ...]]) -> list[Record]:
    """Every record of the parts, by mate and number: its name and bases, or that it is quarantined."""
    records: list[Record] = []
    for mates in found:
        for mate, block in enumerate(mates, 1):
            assert len({other.slots for other in mates}) == 1
            for row, (number, name) in enumerate(zip(block.record_numbers, block.names, strict=True)):
                bases = block.sequence[block.offsets[row] : block.offsets[row + 1]]
                records.append(("read", mate, int(number), name, bases.tobytes()))
            records += [
                ("bad", mate, bad.byte_offset, bad.reason.encode(), bad.raw.encode())
                for bad in block.quarantined
            ]
    return sorted(records)


def random_pairs(pairs: int, *, seed: int, damage: float) -> tuple[list[bytes], list[bytes]]:
    """Records of both mates, with other lengths; of some the quality is too short."""
    rng = random.Random(seed)
    mates: tuple[list[bytes], list[bytes]] = ([], [])
    for number in range(pairs):
        for mate, records in enumerate(mates, 1):
            bases = bytes(rng.choices(b"ACGTNacgt", k=rng.randint(1, 10 if mate == 1 else 60)))
            quality = bytes(rng.choices(b"@+#5I", k=len(bases) - (rng.random() < damage)))
            records.append(b"@p%d/%d\n%s\n+\n%s\n" % (number, mate, bases, quality))
    return mates


@pytest.mark.parametrize("seed", range(3))
def test_blocks_and_layouts_never_change_what_is_read(seed: int) -> None:
    """Mates have other lengths here, so that a bound in bases cuts the two files at other records."""
    first, second = random_pairs(150, seed=seed, damage=0.1)
    whole, error = parts(b"".join(first), b"".join(second), layout="paired")
    assert error == ""
    assert sum(len(mates[0].quarantined) + len(mates[1].quarantined) for mates in whole) > 5
    together = b"".join(a + b for a, b in zip(first, second, strict=True))
    (pairs,), _ = parts(together, layout="interleaved")
    reads = [record for record in accounted(whole) if record[0] == "read"]
    assert [record for record in accounted([pairs]) if record[0] == "read"] == reads
    for limits in (BlockLimits(records=1), BlockLimits(records=7), BlockLimits(bases=50)):
        found, error = parts(b"".join(first), gzip.compress(b"".join(second)), layout="paired", limits=limits)
        assert error == ""
        assert accounted(found) == accounted(whole)
        assert all(block.slots <= limits.records for mates in found for block in mates)
        found, error = parts(zstd.compress(together), layout="interleaved", limits=limits)
        assert error == ""
        assert accounted(found) == accounted([pairs])
        assert len(found) > 15


@pytest.mark.parametrize("layout", ["single", "paired", "interleaved"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd.compress])
def test_a_file_that_is_cut_anywhere_gives_what_is_before_the_cut(layout: str, compress: object) -> None:
    """A good record is never changed by the cut, and a compressed file that is cut is always known to be."""
    assert callable(compress)
    first, second = random_pairs(40, seed=5, damage=0.1)
    texts = [b"".join(first), b"".join(second)]
    if layout != "paired":
        texts = [b"".join(a + b for a, b in zip(first, second, strict=True))]
    whole, _ = parts(*texts, layout=layout)
    good = {record for record in accounted(whole) if record[0] == "read"}
    rng = random.Random(1)
    body = compress(texts[0])
    for cut in [0, 1, len(body) - 1, *rng.sample(range(len(body)), 12)]:
        found, error = parts(body[:cut], *texts[1:], layout=layout, limits=BlockLimits(records=9))
        assert {record for record in accounted(found) if record[0] == "read"} <= good
        if compress is not bytes and cut > 3:
            assert "cut off" in error


def test_a_base_bound_ends_blocks_of_long_reads() -> None:
    text = b"".join(b"@r%d\n%s\n+\n%s\n" % (n, b"A" * 100, b"I" * 100) for n in range(10))
    found, _ = parts(text, layout="single", limits=BlockLimits(bases=250))
    assert [mates[0].slots for mates in found] == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("files", "layout", "why", "slots"),
    [
        (
            (b"@a\nA\n+\nI\n@b\nA\n+\nI\n", b"@a\nA\n+\nI\n"),
            "paired",
            "file2 ends after record 1 and file1",
            1,
        ),
        ((b"", b"@a\nA\n+\nI\n"), "paired", "file1 ends after record 0 and file2 goes on", 0),
        ((b"@a/1\nA\n+\nI\n", b"@b/2\nA\n+\nI\n"), "paired", "record 1 is 'a/1' in the first", 0),
        (
            (b"@a/1\nA\n+\nI\n@a/2\nA\n+\nI\n@b/1\nA\n+\nI\n",),
            "interleaved",
            "record 3, its last, has no mate",
            1,
        ),
        ((b"@a/1\nA\n+\nI\n@b/1\nA\n+\nI\n",), "interleaved", "record 1 is 'a/1' in the first", 0),
        ((b"@HD\tVN:1.6\n",), "single", "file1 is SAM", 0),
    ],
)
def test_what_does_not_go_together_is_refused(
    files: tuple[bytes, ...], layout: str, why: str, slots: int
) -> None:
    found, error = parts(*files, layout=layout)
    assert why in error
    assert sum(mates[0].slots for mates in found) == slots


@pytest.mark.parametrize(
    ("first", "second", "are_mates"),
    [
        (b"r7 1:N:0:ACGT", b"r7 2:N:0:ACGT", True),
        (b"r7/1 x", b"r7/2 x", True),
        (b"r7", b"r7", True),
        (b"r7 a comment", b"r7", True),
        (b"r7.1", b"r7.2", True),
        (b"1 x", b"2 x", False),
        (b"r1x", b"r2x", False),
        (b"r1", b"r2", False),
        (b"r.1.5 1", b"r.2.5 1", False),
        (b"r7/2", b"r7/1", False),
        (b"", b"", True),
    ],
)
def test_mates_are_known_by_their_names(first: bytes, second: bytes, are_mates: bool) -> None:
    """Among others, so that the way for many names at once and the one for single names both see it."""
    template = b"@same/%d\nA\n+\nI\n@%s\nA\n+\nI\n"
    _, error = parts(template % (1, first), template % (2, second), layout="paired")
    assert (error == "") == are_mates


def test_a_layout_wants_its_number_of_files() -> None:
    with pytest.raises(InvalidInput, match="1 file"):
        sample_blocks([("a", io.BytesIO())], layout="paired", quality_offset=33)


def test_a_read_to_the_end_is_verified() -> None:
    body = gzip.compress(b"@r\nACGT\n+\nIIII\n")
    sha256 = hashlib.sha256(body).hexdigest()
    (block,) = read_blocks(
        verified(io.BytesIO(body), sha256, "s3://lake/r.fq.gz"), source="r", quality_offset=33
    )
    assert len(block) == 1
    changed = b"@r\nACGA\n+\nIIII\n"
    with pytest.raises(StorageError, match=r"s3://lake/r.fq was read with the SHA-256"):
        list(
            read_blocks(
                verified(io.BytesIO(changed), sha256, "s3://lake/r.fq"), source="r", quality_offset=33
            )
        )


def test_what_was_damaged_on_the_way_is_not_blamed_on_the_file() -> None:
    body = bytearray(gzip.compress(b"@r\nACGT\n+\nIIII\n"))
    body[-6] ^= 1
    landed = hashlib.sha256(body).hexdigest()
    for sha256, error in ((landed, InvalidReads), ("0" * 64, StorageError)):
        stream = verified(io.BytesIO(body), sha256, "r.fq.gz")
        with pytest.raises(error):
            list(read_blocks(stream, source="r.fq.gz", quality_offset=33))
