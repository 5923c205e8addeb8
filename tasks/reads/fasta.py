"""FASTA as blocks of reads without qualities; sequences may be wrapped over any number of lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tasks.errors import InvalidReads
from tasks.reads.block import UNKNOWN_QUALITY, ReadBlock, gathered
from tasks.reads.block_builder import BLOCK_BASES, BlockBuilder, BlockLimits, Reason, built_blocks
from tasks.reads.compression import Text
from tasks.reads.fastq import BASES
from tasks.reads.lines import LONGEST_LINE_BYTES, LineWindow

_LINES_AT_ONCE = 40_000
_HEADER = ord(">")


def fasta_blocks(text: Text, *, limits: BlockLimits) -> Iterator[ReadBlock]:
    """Read FASTA text in blocks.

    What stands before the first header, a record without bases and one with a character that is no base code are
    quarantined.

    :raises InvalidReads: the text is damaged, or a record is longer than 64 MiB; the records before were given.
    """
    return built_blocks(_Parser(text), limits)


class _Parser:
    """The place in the text, always at the beginning of a record."""

    def __init__(self, text: Text) -> None:
        self._window = LineWindow(text)
        self._source = text.source

    def fill(self, builder: BlockBuilder) -> None:
        """See :class:`tasks.reads.block_builder.RecordParser`."""
        window = self._window
        while builder.room:
            window.drop_blank()
            borders = self._whole_records(builder)
            if not len(borders):
                return
            starts, ends = window.lines(int(borders[-1]))
            is_sequence = np.ones(len(starts), dtype=bool)
            is_sequence[borders[:-1]] = False
            if window.codes[starts[0]] != _HEADER:
                self._quarantine(builder, Reason.FASTA_HEADER, lines=int(borders[1]))
                continue
            sizes = np.zeros(len(starts) + 1, dtype=np.int64)
            np.cumsum((ends - starts) * is_sequence, out=sizes[1:])
            offsets = sizes[borders]
            text = gathered(window.codes, starts[is_sequence], ends[is_sequence])
            sequence = np.frombuffer(bytearray(text).translate(BASES), dtype=np.uint8)
            self._take(builder, borders, starts, ends, sequence, offsets)

    def _take(
        self,
        builder: BlockBuilder,
        borders: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        sequence: np.ndarray,
        offsets: np.ndarray,
    ) -> None:
        """Give the builder what it has room for of the records that begin at the lines ``borders[:-1]``."""
        window = self._window
        invalid = np.zeros(len(sequence) + 1, dtype=np.int64)
        np.cumsum(sequence == 0, out=invalid[1:])
        is_empty = np.diff(offsets) == 0
        bad = np.flatnonzero(is_empty | (np.diff(invalid[offsets]) > 0))
        text = window.text
        names = [
            text[start + 1 : end]
            for start, end in zip(starts[borders[:-1]].tolist(), ends[borders[:-1]].tolist(), strict=True)
        ]
        record, records = 0, len(names)
        while record < records and (room := builder.room):
            next_bad = int(np.searchsorted(bad, record))
            stop = int(bad[next_bad]) if next_bad < len(bad) else records
            if stop == record:
                reason = Reason.EMPTY if is_empty[record] else Reason.BASES
                self._quarantine(builder, reason, lines=int(borders[record + 1] - borders[record]))
                record += 1
                continue
            full = int(np.searchsorted(offsets, offsets[record] + max(builder.bases_left, 1)))
            stop = min(stop, record + room, full)
            first, last = offsets[record], offsets[stop]
            builder.add(
                ReadBlock(
                    first_record=builder.next_record,
                    record_numbers=np.arange(builder.next_record, builder.next_record + stop - record),
                    names=names[record:stop],
                    sequence=sequence[first:last],
                    quality=np.full(last - first, UNKNOWN_QUALITY, dtype=np.uint8),
                    offsets=offsets[record : stop + 1] - first,
                    quarantined=[],
                    qualities_known=False,
                )
            )
            window.drop(int(borders[stop] - borders[record]))
            record = stop

    def _whole_records(self, builder: BlockBuilder) -> np.ndarray:
        """Where the next records begin, and where the last of them ends, in lines; empty at the end."""
        window = self._window
        lines, enough_bytes = _LINES_AT_ONCE, BLOCK_BASES
        while True:
            at_hand = window.fill(lines + 1, enough_bytes=enough_bytes)
            count = min(at_hand, lines)
            starts, _ = window.lines(count)
            headers = np.flatnonzero(window.codes[starts] == _HEADER) if count else np.zeros(0, np.int64)
            borders = np.union1d(
                headers, [0]
            )  # what stands before the first header is given up as one record
            is_end = count == at_hand and window.fill(at_hand + 1) == at_hand
            if is_end and window.damage is None:
                return np.append(borders, count) if count else headers
            if len(borders) > 1:
                return borders
            start, end = window.span(count)
            if is_end or end - start > LONGEST_LINE_BYTES:
                what = window.damage or f"a record is longer than {LONGEST_LINE_BYTES >> 20} MiB"
                raise InvalidReads(
                    f"{self._source}: {what}; the last record before it is number {builder.next_record - 1}. "
                    "Give a whole file of reads"
                )
            lines, enough_bytes = 2 * lines, 2 * enough_bytes

    def _quarantine(self, builder: BlockBuilder, reason: Reason, *, lines: int) -> None:
        window = self._window
        start, end = window.span(lines)
        raw = window.text[start:end]
        builder.quarantine(source=self._source, byte_offset=window.offset, reason=reason, raw=raw)
        window.drop(lines)
