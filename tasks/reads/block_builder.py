"""From a parser's runs of good reads and single bad records to blocks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

import numpy as np

from tasks.errors import InvalidReads
from tasks.reads.block import QuarantinedRecord, ReadBlock

BLOCK_RECORDS = 20_000
BLOCK_BASES = 16 << 20  # 20,000 reads of up to 838 bases; blocks of longer reads have fewer

_RAW_BYTES = 4096  # of a quarantined record, enough to see what is wrong with it


class Reason(StrEnum):
    """Why a record is in quarantine."""

    HEADER = "the header line does not start with '@'"
    FASTA_HEADER = "the header line does not start with '>'"
    PLUS = "the third line does not start with '+'"
    OTHER_NAME = "the '+' line repeats another name"
    LENGTHS = "the sequence and the quality have different lengths"
    EMPTY = "the sequence is empty"
    BASES = "the sequence has a character that is no IUPAC base code"
    QUALITY = "the quality has a character outside its encoding's range"
    CUT_OFF = "the file ends in the middle of the record"
    CLIPPED = "bases were clipped off when the read was aligned"
    SOME_QUALITIES = "some records of the file have base qualities and some have none"
    RECORD = "the record's fields do not fit its size"


@dataclass(frozen=True)
class BlockLimits:
    """Where a block ends: at the first record that reaches a limit, so by the input alone.

    :param multiple: a block's record slots are a multiple of it, except for those of the last.
    """

    records: int = BLOCK_RECORDS
    bases: int = BLOCK_BASES
    multiple: int = 1


@dataclass
class BlockBuilder:
    """One block while it is filled; ``next_record`` is the number of the record slot that comes next."""

    first_record: int
    limits: BlockLimits
    next_record: int = field(init=False)
    bases_left: int = field(init=False)
    runs: list[ReadBlock] = field(default_factory=list)
    quarantined: list[QuarantinedRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.next_record = self.first_record
        self.bases_left = self.limits.bases

    @property
    def room(self) -> int:
        """How many more record slots the block may take, whatever their bases; 0 where it is full."""
        slots = self.next_record - self.first_record
        if self.bases_left > 0:
            return self.limits.records - slots
        return -slots % self.limits.multiple

    def add(self, run: ReadBlock) -> None:
        """Take good reads, the next slots."""
        if len(run):
            self.runs.append(run)
            self.next_record += len(run)
            self.bases_left -= len(run.sequence)

    def quarantine(self, *, source: str, byte_offset: int, reason: Reason, raw: bytes) -> None:
        """Take the next slot as a record that cannot be read."""
        text = raw[:_RAW_BYTES].decode(errors="backslashreplace")
        self.quarantined.append(QuarantinedRecord(source, self.next_record, byte_offset, reason, text))
        self.next_record += 1

    def block(self) -> ReadBlock:
        """What was taken; most blocks are one run and are not copied."""
        runs = self.runs or [_no_reads()]
        if len(runs) == 1:
            return replace(runs[0], first_record=self.first_record, quarantined=self.quarantined)
        offsets = np.zeros(sum(map(len, runs)) + 1, dtype=np.int64)
        np.cumsum(np.concatenate([np.diff(run.offsets) for run in runs]), out=offsets[1:])
        return ReadBlock(
            first_record=self.first_record,
            record_numbers=np.concatenate([run.record_numbers for run in runs]),
            names=[name for run in runs for name in run.names],
            sequence=np.concatenate([run.sequence for run in runs]),
            quality=np.concatenate([run.quality for run in runs]),
            offsets=offsets,
            quarantined=self.quarantined,
            qualities_known=runs[0].qualities_known,
        )


class RecordParser(Protocol):
    """Reads the records of one format, in their order."""

    def fill(self, builder: BlockBuilder) -> None:
        """Give the builder the next records until it has no more room or there are no more records.

        :raises InvalidReads: nothing can be read any more; what was given before is good.
        """


def built_blocks(parser: RecordParser, limits: BlockLimits) -> Iterator[ReadBlock]:
    """All blocks of a source; where it stops with an error, what comes before it is given first."""
    builder = BlockBuilder(1, limits)
    while True:
        failure = None
        try:
            parser.fill(builder)
        except InvalidReads as error:
            failure = error
        if builder.next_record > builder.first_record:
            yield builder.block()
        if failure is not None:
            raise failure
        if builder.room:
            return
        builder = BlockBuilder(builder.next_record, limits)


def _no_reads() -> ReadBlock:
    nothing = np.zeros(0, dtype=np.uint8)
    return ReadBlock(1, np.zeros(0, np.int64), [], nothing, nothing, np.zeros(1, np.int64), [])
