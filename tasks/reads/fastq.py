"""FASTQ as blocks of reads: fast where records are good, exact about those that are not.

Good records are checked and cut out by compiled code. From the first record that fails, the slow path looks at
single records: what cannot be read goes to quarantine, and reading resumes at the next record that is surely one.
Sequence and quality have one line each; the format's wrapped form of old is not read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tasks.compiled import compiled
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


def fastq_blocks(text: Text, *, quality_offset: int, limits: BlockLimits) -> Iterator[ReadBlock]:
    """Read FASTQ text in blocks.

    An empty file has no blocks; blank lines between records are no records.

    :param quality_offset: 33 or 64, see :mod:`tasks.reads.layouts`.
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
            is_whole = 0 < len(run) == tried
            self._at_once = min(2 * self._at_once, BLOCK_RECORDS) if is_whole else _RECORDS_AFTER_ERROR
            if len(run):  # also where a bad record follows: a shorter run may just have filled the block
                continue
            if window.drop_blank():
                continue
            if not window.fill(1):
                self._raise_if_damaged()
                break
            self._quarantine(builder)

    def _good_run(self, builder: BlockBuilder, records: int) -> ReadBlock:
        """Take the good records that come next, at most ``records``, which the window holds whole."""
        window = self._window
        start, newlines = window.newlines(4 * records)
        names, sequence, quality, offsets = _good_records(
            window.codes, start, newlines, _BASE_CODES, self._quality_offset, builder.bases_left
        )
        records = len(offsets) - 1
        first = builder.next_record
        run = ReadBlock(
            first_record=first,
            record_numbers=np.arange(first, first + records),
            names=names.tobytes().split(b"\n")[:-1],  # eight times as fast as slices
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


@compiled
def _good_records(
    text: np.ndarray,
    start: int,
    newlines: np.ndarray,
    base_codes: np.ndarray,
    quality_offset: int,
    most_bases: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The good records from ``start`` on: up to a bad one, or the one that reaches ``most_bases``.

    :param newlines: where the lines end in the text, four lines a record, int64.
    :return: names, each with a newline behind it; sequence, quality and offsets as in :class:`ReadBlock`.
    """
    records = len(newlines) // 4
    header_bytes, bases = np.int64(0), np.int64(0)
    before = np.int64(start - 1)
    for record in range(records):
        header_bytes += newlines[4 * record] - before
        bases += newlines[4 * record + 1] - newlines[4 * record]
        before = newlines[4 * record + 3]
    names = np.empty(header_bytes, dtype=np.uint8)
    sequence = np.empty(bases, dtype=np.uint8)
    quality = np.empty(bases, dtype=np.uint8)
    offsets = np.zeros(records + 1, dtype=np.int64)
    lowest, span = np.uint8(quality_offset), np.uint8(_HIGHEST_QUALITY_CHARACTER - quality_offset)
    named = filled = np.int64(0)
    good = 0
    line = np.int64(start)
    for record in range(records):
        header = _line(text, line, newlines[4 * record])
        called = _line(text, newlines[4 * record] + 1, newlines[4 * record + 1])
        plus = _line(text, newlines[4 * record + 1] + 1, newlines[4 * record + 2])
        values = _line(text, newlines[4 * record + 2] + 1, newlines[4 * record + 3])
        line = newlines[4 * record + 3] + 1
        length = len(called)
        if length == 0 or length != len(values) or len(header) == 0 or len(plus) == 0:
            break
        if header[0] != 64 or plus[0] != 43 or not _says_no_other_name(header, plus):  # @, +
            break
        to, invalid = sequence[filled : filled + length], np.uint8(0)
        for i in range(length):
            code = base_codes[called[i]]
            to[i] = code
            invalid |= np.uint8(code == 0)
        to, highest = quality[filled : filled + length], np.uint8(0)
        for i in range(length):
            value = np.uint8(values[i] - lowest)  # what is too low becomes very high
            to[i] = value
            highest = max(highest, value)
        if invalid or highest > span:
            break
        for i in range(1, len(header)):
            names[named] = header[i]
            named += 1
        names[named] = 10
        named += 1
        filled += length
        good += 1
        offsets[good] = filled
        if filled >= most_bases:
            break
    return names[:named], sequence[:filled], quality[:filled], offsets[: good + 1]


@compiled
def _line(text: np.ndarray, start: np.int64, end: np.int64) -> np.ndarray:
    """The line without its line end, which may be that of Windows."""
    if end > start and text[end - 1] == 13:
        end -= 1
    return text[start:end]


@compiled
def _says_no_other_name(header: np.ndarray, plus: np.ndarray) -> bool:
    """See :func:`_repeats`, which says the same of bytes."""
    size = len(plus)
    if size == 1:
        return True
    if size > len(header) or (size < len(header) and header[size] != 32 and header[size] != 9):
        return False
    for i in range(1, size):  # noqa: SIM110 (numba compiles a loop in a fraction of the time)
        if header[i] != plus[i]:
            return False
    return True
