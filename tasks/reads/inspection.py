"""A look through all files of a sample: are they whole, how many records, which encoding, are mates mates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO

import numpy as np

from tasks.errors import InvalidReads
from tasks.reads.block import QuarantinedRecord, ReadBlock
from tasks.reads.fastq import QUALITY_OFFSETS, read_blocks

_SHOWN_RECORDS = 5
_CLEARLY_33 = 59  # no phred+64 encoding, Solexa's included, has a character below ';'
_CLEARLY_64 = 74  # 'J', quality 41: Illumina's highest in phred+33


@dataclass(frozen=True)
class FileInspection:
    """What one file holds.

    :param records: record slots, good and bad.
    :param quarantined: how many of them cannot be read.
    :param first_quarantined: the first five of those.
    """

    source: str
    records: int
    quarantined: int
    first_quarantined: list[QuarantinedRecord]


@dataclass(frozen=True)
class SampleInspection:
    """What a sample's files hold, in their order, and the encoding that they share."""

    files: list[FileInspection]
    quality_encoding: str


def inspect_sample(files: Sequence[tuple[str, BinaryIO]]) -> SampleInspection:
    """Read the one file of a single library, or both files of a paired one side by side, once.

    :param files: what to call each file, and its raw bytes, plain or gzip.
    :raises InvalidReads: a file is damaged or has no good record, or the two are not each other's mates.
    """
    tallies = [_Tally(source) for source, _ in files]
    blocks = [read_blocks(stream, source=source, quality_offset=33) for source, stream in files]
    for group in zip_longest(*blocks):
        for tally, block in zip(tallies, group, strict=True):
            if block is not None:
                tally.add(block)
        if len(group) == 2 and group[0] is not None and group[1] is not None:
            _check_mates(group[0], group[1], sources=[tally.source for tally in tallies])
    for tally in tallies:
        if tally.records == tally.quarantined:
            why = (
                f": record 1: {tally.first_quarantined[0].reason}"
                if tally.first_quarantined
                else ", it is empty"
            )
            raise InvalidReads(f"{tally.source} has no record that can be read{why}. Is it FASTQ?")
    if len({tally.records for tally in tallies}) > 1:
        counts = " and ".join(f"{tally.source} {tally.records:,}" for tally in tallies)
        raise InvalidReads(f"the files of a pair have as many records each, but {counts}")
    lowest = min(tally.lowest_character for tally in tallies)
    highest = max(tally.highest_character for tally in tallies)
    return SampleInspection(
        [FileInspection(t.source, t.records, t.quarantined, t.first_quarantined) for t in tallies],
        quality_encoding(lowest, highest),
    )


def quality_encoding(lowest: int, highest: int) -> str:
    """The encoding of a whole sample by its lowest and highest quality character; in doubt phred+33."""
    if lowest < _CLEARLY_33 or highest <= _CLEARLY_64 or lowest < QUALITY_OFFSETS["phred+64"]:
        return "phred+33"
    return "phred+64"


class _Tally:
    """Counts of one file while it is read."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.records = 0
        self.quarantined = 0
        self.first_quarantined: list[QuarantinedRecord] = []
        self.lowest_character = 255
        self.highest_character = 0

    def add(self, block: ReadBlock) -> None:
        self.records += block.slots
        self.quarantined += len(block.quarantined)
        self.first_quarantined += block.quarantined[: _SHOWN_RECORDS - len(self.first_quarantined)]
        if len(block):
            self.lowest_character = min(self.lowest_character, int(block.quality.min()) + 33)
            self.highest_character = max(self.highest_character, int(block.quality.max()) + 33)


def _check_mates(first: ReadBlock, second: ReadBlock, *, sources: list[str]) -> None:
    """Raise where records of one number have names of different templates."""
    numbers, rows, mates = np.intersect1d(
        first.record_numbers, second.record_numbers, assume_unique=True, return_indices=True
    )
    for number, row, mate in zip(numbers.tolist(), rows.tolist(), mates.tolist(), strict=True):
        name, other = first.names[row], second.names[mate]
        if name != other and not _are_mates(name, other):
            raise InvalidReads(
                f"{sources[0]} and {sources[1]} are not the two files of one pair: record {number} is "
                f"{name.decode(errors='replace')!r} in the first and {other.decode(errors='replace')!r} in "
                "the second. Give the files that belong together; if they are not mates at all, rename one."
            )


def _are_mates(name: bytes, other: bytes) -> bool:
    """Whether the first words are equal, but for a last 1 and 2 as in ``r7/1``, ``r7.1`` or ``r7_1``."""
    word, mate = (text.split(maxsplit=1)[0] if text.strip() else b"" for text in (name, other))
    return word == mate or (
        word[:-1] == mate[:-1] and word[-2:] in (b"/1", b".1", b"_1") and mate[-1:] == b"2"
    )
