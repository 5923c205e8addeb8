"""FASTQ as blocks of reads: fast where records are good, exact about those that are not.

A block of records is checked and cut out in a few whole-array steps. From the first record that fails, the
slow path looks at single records: what cannot be read goes to quarantine, and reading resumes at the next
record that is surely one.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import BinaryIO

import numpy as np

from tasks.errors import InvalidReads
from tasks.reads.block import QuarantinedRecord, ReadBlock, gathered, joined
from tasks.reads.lines import LineWindow

BLOCK_RECORDS = 20_000
QUALITY_OFFSETS = {"phred+33": 33, "phred+64": 64}

_HIGHEST_QUALITY_CHARACTER = ord("~")
_RAW_BYTES = 4096  # of a quarantined record, enough to see what is wrong with it
_RESYNC_BYTES = 64 << 20  # longest reads known are a few Mb: farther than this, nothing is "the next record"
_RECORDS_AFTER_ERROR = 64  # checked at once after a bad record; doubles with every good run

# What a sequence character becomes: upper case, U as T, every other ambiguity code as N, 0 where invalid.
_BASES = bytearray(256)
for _code in b"RYSWKMBDHVN.":
    _BASES[_code] = _BASES[_code | 0x20] = ord("N")
for _code in b"ACGTU":
    _BASES[_code] = _BASES[_code | 0x20] = ord("T") if _code == ord("U") else _code
BASES = bytes(_BASES)


class Reason(StrEnum):
    """Why a record is in quarantine."""

    HEADER = "the header line does not start with '@'"
    PLUS = "the third line does not start with '+'"
    OTHER_NAME = "the '+' line repeats another name"
    LENGTHS = "the sequence and the quality have different lengths"
    EMPTY = "the sequence is empty"
    BASES = "the sequence has a character that is no IUPAC base code"
    QUALITY = "the quality has a character outside its encoding's range"
    CUT_OFF = "the file ends in the middle of the record"


def read_blocks(
    stream: BinaryIO, *, source: str, quality_offset: int, block_records: int = BLOCK_RECORDS
) -> Iterator[ReadBlock]:
    """Read FASTQ text, plain or gzip (also of many members), in blocks of exactly ``block_records`` slots.

    Only the last block has fewer, so block ``b`` of a file is the same wherever and however often it is read.
    Memory is bounded by one block. An empty file has no blocks; blank lines between records are no records.

    :param source: what errors and quarantined records call the stream.
    :param quality_offset: 33 or 64, see :data:`QUALITY_OFFSETS`.
    :raises InvalidReads: the stream is damaged or is no FASTQ at all, with the number of the last good record.
    """
    parser = _Parser(LineWindow(stream, source=source), source, quality_offset)
    while (block := parser.next_block(block_records)) is not None:
        yield block


class _Parser:
    """The place in the text: which record comes next, and how many to try at once."""

    def __init__(self, window: LineWindow, source: str, quality_offset: int) -> None:
        self._window = window
        self._source = source
        self._quality_offset = quality_offset
        self._next_record = 1
        self._last_good = 0
        self._at_once = BLOCK_RECORDS

    def next_block(self, block_records: int) -> ReadBlock | None:
        """The next block, or None at the end of the text."""
        first_record = self._next_record
        end = first_record + block_records
        runs: list[ReadBlock] = []
        quarantined: list[QuarantinedRecord] = []
        while self._next_record < end:
            wanted = min(self._at_once, end - self._next_record)
            run = self._good_run(min(wanted, self._window.fill(4 * wanted) // 4))
            runs.append(run)
            if len(run) == wanted:
                self._at_once = min(2 * self._at_once, BLOCK_RECORDS)
                continue
            self._at_once = _RECORDS_AFTER_ERROR
            if self._drop_blank_lines():
                continue
            if not self._window.fill(1):
                self._raise_if_damaged()
                break
            quarantined.append(self._bad_record())
        if self._next_record == first_record:
            return None
        return joined(first_record, runs, quarantined)

    def _good_run(self, records: int) -> ReadBlock:
        """Take the good records that come next, at most ``records``, which the window holds whole."""
        window = self._window
        text = window.text
        starts, ends = (lines.reshape(-1, 4) for lines in window.lines(4 * records))
        first, sizes = window.codes[starts], ends - starts
        good = (first[:, 0] == ord("@")) & (first[:, 2] == ord("+"))
        good &= (sizes[:, 1] == sizes[:, 3]) & (sizes[:, 1] > 0)
        named = np.flatnonzero(good & (sizes[:, 2] > 1))
        good[named] = self._name_repeats(starts[named], ends[named])
        if not good.all():
            records = int(np.argmin(good))

        starts, ends, sizes = starts[:records], ends[:records], sizes[:records]
        offsets = np.zeros(records + 1, dtype=np.int64)
        np.cumsum(sizes[:, 1], out=offsets[1:])
        bases = gathered(window.codes, starts[:, 1], ends[:, 1])
        sequence = np.frombuffer(bytearray(bases).translate(BASES), dtype=np.uint8)
        quality = gathered(window.codes, starts[:, 3], ends[:, 3])
        if records and (
            not sequence.all()
            or quality.min() < self._quality_offset
            or quality.max() > _HIGHEST_QUALITY_CHARACTER
        ):
            invalid = (sequence == 0) | (quality < self._quality_offset)
            invalid |= quality > _HIGHEST_QUALITY_CHARACTER
            records = int(np.searchsorted(offsets, np.argmax(invalid), side="right")) - 1
        offsets = offsets[: records + 1]
        names = zip((starts[:records, 0] + 1).tolist(), ends[:records, 0].tolist(), strict=True)
        run = ReadBlock(
            first_record=self._next_record,
            record_numbers=np.arange(self._next_record, self._next_record + records),
            names=[text[start:end] for start, end in names],
            sequence=sequence[: offsets[-1]],
            quality=quality[: offsets[-1]] - np.uint8(self._quality_offset),
            offsets=offsets,
            quarantined=[],
        )
        window.drop(4 * records)
        self._next_record += records
        self._last_good = self._next_record - 1 if records else self._last_good
        return run

    def _name_repeats(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | bool:
        """For each record whose '+' line says more than '+': does it name the record?"""
        text, codes = self._window.text, self._window.codes
        headers, pluses = (gathered(codes, starts[:, line] + 1, ends[:, line]) for line in (0, 2))
        sizes = ends - starts
        if np.array_equal(sizes[:, 0], sizes[:, 2]) and np.array_equal(headers, pluses):
            return True
        return np.array(
            [
                _repeats(text[start[0] : end[0]], text[start[2] : end[2]])
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            ]
        )

    def _drop_blank_lines(self) -> bool:
        """Whether there were any where a record should begin."""
        dropped = False
        while self._window.fill(1) and not self._window.line(0):
            self._window.drop(1)
            dropped = True
        return dropped

    def _bad_record(self) -> QuarantinedRecord:
        """Take the bad record that comes next, up to where the next record surely begins."""
        window = self._window
        lines = [window.line(index) for index in range(min(4, window.fill(4)))]
        reason = self._reason(lines)
        size = self._lines_of_bad_record()
        start, end = window.span(size)
        record = QuarantinedRecord(
            source=self._source,
            record_number=self._next_record,
            byte_offset=window.offset,
            reason=reason,
            raw=window.text[start : min(end, start + _RAW_BYTES)].decode(errors="backslashreplace"),
        )
        window.drop(size)
        self._next_record += 1
        return record

    def _reason(self, lines: list[bytes]) -> Reason:
        if not lines[0].startswith(b"@"):
            return Reason.HEADER
        if len(lines) < 4:
            return Reason.CUT_OFF
        header, sequence, plus, quality = lines
        if not plus.startswith(b"+"):
            return Reason.PLUS
        if len(plus) > 1 and not _repeats(header, plus):
            return Reason.OTHER_NAME
        if not sequence:
            return Reason.EMPTY
        if len(sequence) != len(quality):
            is_last_line = self._window.fill(5) == 4
            cut_off = is_last_line and self._window.cut_last_line and len(quality) < len(sequence)
            return Reason.CUT_OFF if cut_off else Reason.LENGTHS
        return Reason.BASES if 0 in sequence.translate(BASES) else Reason.QUALITY

    def _lines_of_bad_record(self) -> int:
        """How many lines to give up: four where the next record follows them, else up to a whole record."""
        window = self._window
        at_hand = window.fill(7)
        self._raise_if_damaged(at_hand < 4)
        if at_hand >= 4 and window.line(0).startswith(b"@") and window.line(2).startswith(b"+"):
            begins = at_hand == 4 or window.line(4).startswith(b"@")
            if begins and (at_hand < 7 or window.line(6).startswith(b"+")):
                return 4
        line = 1
        while (at_hand := window.fill(line + 4)) >= line + 4:
            if (
                window.line(line).startswith(b"@")
                and window.line(line + 2).startswith(b"+")
                and len(window.line(line + 1)) == len(window.line(line + 3)) > 0
            ):
                return line
            line += 1
            start, end = window.span(line)
            if end - start > _RESYNC_BYTES:
                raise InvalidReads(
                    f"{self._source}: no record can be read in the {_RESYNC_BYTES >> 20} MiB from record "
                    f"{self._next_record} on (the last good record is number {self._last_good}); "
                    "is this a FASTQ file, and is it whole?"
                )
        self._raise_if_damaged()
        return at_hand

    def _raise_if_damaged(self, here: bool = True) -> None:
        if here and self._window.damage:
            raise InvalidReads(
                f"{self._source}: {self._window.damage}; the last good record before it is number "
                f"{self._last_good}. Get the file again from where it was made."
            )


def _repeats(header: bytes, plus: bytes) -> bool:
    """Whether a '+' line that says more than '+' names its record, with or without the comment."""
    return plus[1:] == header[1:] or plus[1:].split() == header[1:].split(maxsplit=1)[:1]
