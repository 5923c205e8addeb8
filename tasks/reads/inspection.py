"""A look through all files of a sample: are they whole, how many records, which encoding, are mates mates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from tasks.errors import InvalidReads
from tasks.reads.block import QuarantinedRecord, ReadBlock
from tasks.reads.layouts import QUALITY_OFFSETS
from tasks.reads.sources import sample_blocks

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


def inspect_sample(files: Sequence[tuple[str, BinaryIO]], *, layout: str) -> SampleInspection:
    """Read a sample's files once, as :func:`tasks.reads.sources.sample_blocks` does.

    A file without records is fine: samples fail. Reads without qualities count as phred+33.

    :raises InvalidReads: a file is damaged or has only bad records, or mates do not go together.
    """
    tallies = [_Tally(source) for source, _ in files]
    range_ = QualityRange()
    for mates in sample_blocks(files, layout=layout, quality_offset=33):
        for number, block in enumerate(mates):
            tallies[number % len(tallies)].add(block)
            range_.add(block)
    for tally in tallies:
        if tally.records and tally.records == tally.quarantined:
            raise InvalidReads(
                f"{tally.source} has no record that can be read: record 1: {tally.first_quarantined[0].reason}. "
                "Is it FASTQ, FASTA or BAM?"
            )
    return SampleInspection(
        [FileInspection(t.source, t.records, t.quarantined, t.first_quarantined) for t in tallies],
        range_.encoding,
    )


def find_quality_encoding(files: Sequence[tuple[str, BinaryIO]], *, layout: str) -> str:
    """The encoding of a sample, read only as far as it takes to be sure, or up to where it cannot be read."""
    range_ = QualityRange()
    try:
        for mates in sample_blocks(files, layout=layout, quality_offset=33):
            for block in mates:
                range_.add(block)
            if range_.lowest < _CLEARLY_33:
                break
    except InvalidReads:
        pass  # whoever reads it to its end is told
    return range_.encoding


@dataclass
class QualityRange:
    """The lowest and the highest quality character so far, where blocks are read as phred+33."""

    lowest: int = 255
    highest: int = 0

    def add(self, block: ReadBlock) -> None:
        """Look at a block's qualities, if it has any."""
        if len(block) and block.qualities_known:
            self.lowest = min(self.lowest, int(block.quality.min()) + 33)
            self.highest = max(self.highest, int(block.quality.max()) + 33)

    @property
    def encoding(self) -> str:
        """The encoding of a whole sample; in doubt phred+33."""
        if self.lowest < _CLEARLY_33 or self.highest <= _CLEARLY_64:
            return "phred+33"
        return "phred+33" if self.lowest < QUALITY_OFFSETS["phred+64"] else "phred+64"


@dataclass
class _Tally:
    """Counts of one file while it is read."""

    source: str
    records: int = 0
    quarantined: int = 0
    first_quarantined: list[QuarantinedRecord] = field(default_factory=list)

    def add(self, block: ReadBlock) -> None:
        self.records += block.slots
        self.quarantined += len(block.quarantined)
        self.first_quarantined += block.quarantined[: _SHOWN_RECORDS - len(self.first_quarantined)]
