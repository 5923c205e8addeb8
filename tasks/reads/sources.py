"""The reads of one sample, mates in step, whatever its files look like."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from tasks.errors import InvalidInput, InvalidReads, StorageError
from tasks.reads.bam import BAM_MAGIC, bam_blocks
from tasks.reads.block import ReadBlock
from tasks.reads.block_builder import BlockLimits
from tasks.reads.compression import Text
from tasks.reads.fasta import fasta_blocks
from tasks.reads.fastq import fastq_blocks
from tasks.reads.layouts import FILES_OF_LAYOUT
from tasks.reads.mates import check_mates, split_at, uninterleaved

_LIMITS = BlockLimits()
_HEAD_BYTES = 4096
_SAM_HEADERS = (b"@HD\t", b"@SQ\t", b"@RG\t", b"@PG\t", b"@CO\t")


def sample_blocks(
    files: Sequence[tuple[str, BinaryIO]],
    *,
    layout: str,
    quality_offset: int,
    limits: BlockLimits = _LIMITS,
) -> Iterator[tuple[ReadBlock, ...]]:
    """Read a sample part by part: a block for each mate, all of the same number of record slots.

    Where a part ends depends on the files and the limits alone. Memory is bounded by one block of each file.

    :param files: what to call each file, and its raw bytes.
    :param layout: ``single``, ``paired`` (two files, record by record), or ``interleaved`` (one file, in which the
        mates of a pair follow each other; its reads are numbered by pair).
    :param quality_offset: 33 or 64, of FASTQ.
    :raises InvalidReads: a file is damaged, or what should be mates does not go together; the parts before that
        were given.
    """
    if FILES_OF_LAYOUT.get(layout) != len(files):
        raise InvalidInput(f"{len(files)} file(s) cannot be of the layout {layout!r}; see {FILES_OF_LAYOUT}")
    if layout == "interleaved":
        return _interleaved(files[0], quality_offset, limits)
    blocks = [
        read_blocks(stream, source=source, quality_offset=quality_offset, limits=limits)
        for source, stream in files
    ]
    if layout == "single":
        return ((block,) for block in blocks[0])
    return _in_step(blocks[0], blocks[1], (files[0][0], files[1][0]))


def read_blocks(
    stream: BinaryIO, *, source: str, quality_offset: int, limits: BlockLimits = _LIMITS
) -> Iterator[ReadBlock]:
    """The blocks of one file; its content shows how it is compressed, and whether it is FASTQ, FASTA or BAM.

    :param source: what errors and quarantined records call the stream.
    :raises InvalidReads: the file is damaged, or is nothing that can be read.
    """
    try:
        yield from _blocks(Text(stream, source=source), quality_offset, limits)
    except InvalidReads:
        if isinstance(stream, _Verified):
            stream.read_to_end()  # raises where other bytes came than were landed: those can be read again
        raise


def _blocks(text: Text, quality_offset: int, limits: BlockLimits) -> Iterator[ReadBlock]:
    head = text.head(_HEAD_BYTES)
    if head.startswith(_SAM_HEADERS):
        raise InvalidReads(f"{text.source} is SAM; make BAM of it: samtools view -b")
    if head.startswith(BAM_MAGIC):
        yield from bam_blocks(text, limits=limits)
    elif head.lstrip(b"\r\n").startswith(b">"):
        yield from fasta_blocks(text, limits=limits)
    else:
        yield from fastq_blocks(text, quality_offset=quality_offset, limits=limits)


def verified(stream: BinaryIO, sha256: str, name: str) -> BinaryIO:
    """The same bytes; reading their end raises StorageError unless they have this SHA-256 (hex digits).

    So a whole read through it is a verified one: what a reader did before the end is not. A file that
    :func:`read_blocks` cannot read is still read to its end, so that what was damaged on the way is not blamed on
    the file.
    """
    return cast(BinaryIO, _Verified(stream, sha256, name))


def _interleaved(
    file: tuple[str, BinaryIO], quality_offset: int, limits: BlockLimits
) -> Iterator[tuple[ReadBlock, ...]]:
    source, stream = file
    both = BlockLimits(records=2 * limits.records, bases=limits.bases, multiple=2)
    alone = 0  # the record that the last block, which may be odd, ends with
    for block in read_blocks(stream, source=source, quality_offset=quality_offset, limits=both):
        pairs, rest = split_at(block, block.slots // 2 * 2)
        alone = rest.slots and rest.first_record
        if pairs.slots:
            mates = uninterleaved(pairs)
            check_mates(*mates, sources=(source, source))
            yield mates
    if alone:
        raise InvalidReads(
            f"{source} does not hold one pair after the other: record {alone}, its last, has no mate. Give the "
            "whole file, or land its reads as single reads"
        )


def _in_step(
    first: Iterator[ReadBlock], second: Iterator[ReadBlock], sources: tuple[str, str]
) -> Iterator[tuple[ReadBlock, ...]]:
    """Blocks of both files, cut to the same slots where one file's reads are longer than the other's."""
    block, other = next(first, None), next(second, None)
    while block is not None and other is not None:
        slots = min(block.slots, other.slots)
        (block, block_rest), (other, other_rest) = split_at(block, slots), split_at(other, slots)
        check_mates(block, other, sources=sources)
        yield block, other
        block = block_rest if block_rest.slots else next(first, None)
        other = other_rest if other_rest.slots else next(second, None)
    if block is not None or other is not None:
        shorter, longer = sources if block is None else sources[::-1]
        last = (block or other).first_record - 1  # type: ignore[union-attr]
        raise InvalidReads(
            f"the files of a pair have as many records each, but {shorter} ends after record {last:,} and {longer} "
            "goes on. Give the two files of one run, both whole"
        )


class _Verified(io.RawIOBase):
    """See :func:`verified`."""

    def __init__(self, stream: BinaryIO, sha256: str, name: str) -> None:
        self._stream = stream
        self._expected = sha256
        self._name = name
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._digest.update(chunk)
        if not chunk and len(buffer) and self._digest.hexdigest() != self._expected:
            raise StorageError(
                f"{self._name} was read with the SHA-256 {self._digest.hexdigest()}, but the manifest says "
                f"{self._expected}: other bytes came than were landed. Try again; if it stays so, land it again"
            )
        return len(chunk)

    def read_to_end(self) -> None:
        """Take what a parser left unread."""
        while self.read(1 << 20):
            pass

    def close(self) -> None:
        self._stream.close()
        super().close()
