"""FASTQ as blocks of reads: fast where records are good, exact about those that are not.

Good records are checked and cut out by compiled code. From the first record that fails, the slow path looks at
single records: what cannot be read goes to quarantine, and reading resumes at the next record that is surely one.
Sequence and quality have one line each; the format's wrapped form of old is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numba
import numpy as np

from tasks.errors import InvalidReads
from tasks.reads.block import ReadBlock
from tasks.reads.block_builder import (
    BLOCK_BASES,
    BLOCK_RECORDS,
    BlockBuilder,
    BlockLimits,
    Reason,
    built_blocks,
)
from tasks.reads.compression import Text
from tasks.reads.lines import LineWindow

QUALITY_OFFSETS = {"phred+33": 33, "phred+64": 64}

_HIGHEST_QUALITY_CHARACTER = ord("~")
_WINDOW_BYTES = 2 * BLOCK_BASES  # of text at hand, unless a single record is longer
_RESYNC_BYTES = 64 << 20  # longest reads known are a few Mb: farther than this, nothing is "the next record"
_RECORDS_AFTER_ERROR = 64  # checked at once after a bad record; doubles with every good run

# What a sequence character becomes: upper case, U as T, every other ambiguity code as N, 0 where invalid.
_BASES = bytearray(256)
for _code in b"RYSWKMBDHVN.":
    _BASES[_code] = _BASES[_code | 0x20] = ord("N")
for _code in b"ACGTU":
    _BASES[_code] = _BASES[_code | 0x20] = ord("T") if _code == ord("U") else _code
BASES = bytes(_BASES)
_BASE_CODES = np.frombuffer(BASES, dtype=np.uint8)


def read_blocks(
    stream: BinaryIO, *, source: str, quality_offset: int, block_records: int = BLOCK_RECORDS
) -> Iterator[ReadBlock]:
    """Blocks of a stream that is known to be FASTQ, plain or compressed."""
    text = Text(stream, source=source)
    return fastq_blocks(text, quality_offset=quality_offset, limits=BlockLimits(records=block_records))


def fastq_blocks(text: Text, *, quality_offset: int, limits: BlockLimits) -> Iterator[ReadBlock]:
    """Read FASTQ text in blocks.

    An empty file has no blocks; blank lines between records are no records.

    :param quality_offset: 33 or 64, see :data:`QUALITY_OFFSETS`.
    :raises InvalidReads: the text is damaged or is no FASTQ at all, with the number of the last good record;
        the records before it were given.
    """
    return built_blocks(_Parser(text, quality_offset), limits)


class _Parser:
    """The place in the text, and how many records to try at once."""

    def __init__(self, text: Text, quality_offset: int) -> None:
        self._window = LineWindow(text)
        self._source = text.source
        self._quality_offset = quality_offset
        self._last_good = 0
        self._at_once = BLOCK_RECORDS

    def fill(self, builder: BlockBuilder) -> None:
        """See :class:`tasks.reads.block_builder.RecordParser`."""
        window = self._window
        while room := builder.room:
            wanted = min(self._at_once, room)
            lines = window.fill(4 * wanted, enough_bytes=_WINDOW_BYTES)
            if lines < 4:
                lines = window.fill(4)
            tried = min(wanted, lines // 4)
            run = self._good_run(builder, tried)
            builder.add(run)
            if tried and len(run) == tried:
                self._at_once = min(2 * self._at_once, BLOCK_RECORDS)
                continue
            if not builder.room:
                break
            self._at_once = _RECORDS_AFTER_ERROR
            if window.drop_blank():
                continue
            if not window.fill(1):
                self._raise_if_damaged()
                break
            self._quarantine(builder)

    def _good_run(self, builder: BlockBuilder, records: int) -> ReadBlock:
        """Take the good records that come next, at most ``records``, which the window holds whole."""
        window = self._window
        text = window.text
        starts, ends = window.lines(4 * records)
        sequence, quality, offsets = _good_records(
            window.codes, starts, ends, _BASE_CODES, self._quality_offset, builder.bases_left
        )
        records = len(offsets) - 1
        first = builder.next_record
        names = zip((starts[: 4 * records : 4] + 1).tolist(), ends[: 4 * records : 4].tolist(), strict=True)
        run = ReadBlock(
            first_record=first,
            record_numbers=np.arange(first, first + records),
            names=[text[start:end] for start, end in names],
            sequence=sequence,
            quality=quality,
            offsets=offsets,
            quarantined=[],
        )
        window.drop(4 * records)
        if records:
            self._last_good = first + records - 1
        return run

    def _quarantine(self, builder: BlockBuilder) -> None:
        """Take the bad record that comes next, up to where the next record surely begins."""
        window = self._window
        lines = [window.line(index) for index in range(min(4, window.fill(4)))]
        reason = self._reason(lines)
        size = self._lines_of_bad_record(builder.next_record)
        start, end = window.span(size)
        builder.quarantine(
            source=self._source, byte_offset=window.offset, reason=reason, raw=window.text[start:end]
        )
        window.drop(size)

    def _reason(self, lines: list[bytes]) -> Reason:
        if not lines[0].startswith(b"@"):
            return Reason.HEADER
        if len(lines) < 4:
            return Reason.CUT_OFF
        header, sequence, plus, quality = lines
        if not plus.startswith(b"+"):
            return Reason.PLUS
        if not _repeats(header, plus):
            return Reason.OTHER_NAME
        if not sequence:
            return Reason.EMPTY
        if len(sequence) != len(quality):
            is_last_line = self._window.fill(5) == 4
            cut_off = is_last_line and self._window.cut_last_line and len(quality) < len(sequence)
            return Reason.CUT_OFF if cut_off else Reason.LENGTHS
        return Reason.BASES if 0 in sequence.translate(BASES) else Reason.QUALITY

    def _lines_of_bad_record(self, number: int) -> int:
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
                    f"{number} on (the last good record is number {self._last_good}); "
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
    """Whether a '+' line says nothing, or names its record, with or without the comment."""
    name, size = plus[1:], len(plus)
    return not name or (header[1:size] == name and header[size : size + 1] in (b"", b" ", b"\t"))


@numba.njit(nogil=True)
def _good_records(
    text: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    base_codes: np.ndarray,
    quality_offset: int,
    most_bases: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The good records from the first line on: up to a bad one, or the one that reaches ``most_bases``.

    :param starts: of the lines in the text, four lines a record, int64; ``ends`` likewise.
    :return: sequence, quality and offsets as in :class:`ReadBlock`.
    """
    records = len(starts) // 4
    room = np.int64(0)
    for record in range(records):
        room += ends[4 * record + 1] - starts[4 * record + 1]
    sequence = np.empty(room, dtype=np.uint8)
    quality = np.empty(room, dtype=np.uint8)
    offsets = np.zeros(records + 1, dtype=np.int64)
    lowest, span = np.uint8(quality_offset), np.uint8(126 - quality_offset)
    filled = np.int64(0)
    good = 0
    for record in range(records):
        header, bases, plus, values = (
            starts[4 * record],
            starts[4 * record + 1],
            starts[4 * record + 2],
            starts[4 * record + 3],
        )
        length = ends[4 * record + 1] - bases
        if length < 1 or ends[4 * record + 3] - values != length:
            break
        header_end, plus_end = ends[4 * record], ends[4 * record + 2]
        if header == header_end or plus == plus_end or text[header] != 64 or text[plus] != 43:  # @, +
            break
        size = plus_end - plus
        if size > 1:
            same = size <= header_end - header
            if same and size < header_end - header:
                same = text[header + size] == 32 or text[header + size] == 9
            for i in range(1, size):
                if not same:
                    break
                same = text[header + i] == text[plus + i]
            if not same:
                break
        valid = True
        for i in range(length):
            code = base_codes[text[bases + i]]
            sequence[filled + i] = code
            valid &= code != 0
        worst = np.uint8(0)
        for i in range(length):
            value = np.uint8(text[values + i] - lowest)
            quality[filled + i] = value
            worst = max(worst, value)
        if not valid or worst > span:
            break
        filled += length
        good += 1
        offsets[good] = filled
        if filled >= most_bases:
            break
    return sequence[:filled], quality[:filled], offsets[: good + 1]
