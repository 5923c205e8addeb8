"""The reads of one sample, mates in step, whatever its files look like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import BinaryIO

from tasks.errors import InvalidReads
from tasks.reads.block import ReadBlock
from tasks.reads.fastq import read_blocks


def sample_blocks(
    files: Sequence[tuple[str, BinaryIO]], *, layout: str, quality_offset: int
) -> Iterator[tuple[ReadBlock, ...]]:
    """Read a sample part by part: a block for each mate, all of the same number of record slots.

    :param files: what to call each file, and its raw bytes.
    :param layout: ``single`` (one file), ``paired`` (two files).
    :param quality_offset: 33 or 64, of FASTQ.
    :raises InvalidReads: a file is damaged, or the mates are not as many.
    """
    blocks = [read_blocks(stream, source=source, quality_offset=quality_offset) for source, stream in files]
    for mates in zip_longest(*blocks):
        slots = [block.slots if block else 0 for block in mates]
        if len(set(slots)) > 1:
            raise InvalidReads(
                f"{files[0][0]} and {files[1][0]} are a pair, but do not hold the same number of records: after "
                f"the same part they go on with {slots[0]:,} and {slots[1]:,} more; give the two files of one run"
            )
        yield mates
