"""BAM as blocks of reads, as they came from the sequencer.

Meant for unaligned BAM. Of aligned BAM, every primary record is one read on its original strand; secondary and
supplementary records repeat a read and are none. Each record says how long it is, so that a bad one can be passed
over: the records of a block are cut out of the stream here, and htslib reads them.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pysam

from tasks.errors import InvalidReads
from tasks.reads.block import UNKNOWN_QUALITY, ReadBlock
from tasks.reads.block_builder import BlockBuilder, BlockLimits, Reason, built_blocks
from tasks.reads.compression import Text
from tasks.reads.fastq import BASES

BAM_MAGIC = b"BAM\1"

_FIXED = struct.Struct("<i8xB3xHHi12x")  # size of the rest, name length, CIGAR operations, flag, bases
_SMALLEST_BYTES = 33  # of the rest: the fixed fields and an empty name
_LARGEST_BYTES = 256 << 20
_PAIRED, _UNMAPPED, _FIRST, _LAST, _NO_READ = 0x1, 0x4, 0x40, 0x80, 0x100 | 0x800
_HARD_CLIP = 5
_HIGHEST_QUALITY = 93

pysam.set_verbosity(0)  # htslib would write to the terminal what is raised here


def bam_blocks(text: Text, *, limits: BlockLimits) -> Iterator[ReadBlock]:
    """Read BAM in blocks; names of paired reads get ``/1`` and ``/2``, as ``samtools fastq`` gives them.

    :raises InvalidReads: the data is damaged or ends within a record; the records before it were given.
    """
    return built_blocks(_Parser(text), limits)


@dataclass(frozen=True)
class _Frame:
    """One record as it stands in the stream, and what is wrong with it at first sight."""

    offset: int
    raw: bytes
    bases: int
    problem: Reason | None


@dataclass(frozen=True)
class _Read:
    name: bytes
    sequence: bytes
    quality: bytes | None


class _Parser:
    """The place in the stream, always at the beginning of a record."""

    def __init__(self, text: Text) -> None:
        self._text = text
        self._buffer = b""
        self._at = 0
        self._offset = 0  # of the buffer in the whole stream
        self._header = b""
        self._qualities_known: bool | None = None

    def fill(self, builder: BlockBuilder) -> None:
        """See :class:`tasks.reads.block_builder.RecordParser`."""
        if not self._header:
            self._header = self._take_header()
        while room := builder.room:
            frames: list[_Frame] = []
            bases = 0
            failure = None
            try:
                while len(frames) < room and bases < max(builder.bases_left, 1):
                    if (frame := self._next_frame(builder.next_record + len(frames))) is None:
                        break
                    frames.append(frame)
                    bases += frame.bases if frame.problem is None else 0
            except InvalidReads as error:
                failure = error
            self._give(builder, frames)
            if failure is not None:
                raise failure
            if not frames:
                return

    def _give(self, builder: BlockBuilder, frames: list[_Frame]) -> None:
        reads: list[_Read] = []
        for frame, read in zip(frames, self._decoded(frames), strict=True):
            if isinstance(read, Reason):
                builder.add(self._run(builder, reads))
                reads = []
                builder.quarantine(
                    source=self._text.source, byte_offset=frame.offset, reason=read, raw=frame.raw
                )
            else:
                reads.append(read)
        builder.add(self._run(builder, reads))

    def _run(self, builder: BlockBuilder, reads: list[_Read]) -> ReadBlock:
        sequence = np.frombuffer(bytearray().join(read.sequence for read in reads), dtype=np.uint8)
        if self._qualities_known:
            quality = np.frombuffer(bytearray().join(read.quality or b"" for read in reads), dtype=np.uint8)
        else:
            quality = np.full(len(sequence), UNKNOWN_QUALITY, dtype=np.uint8)
        return ReadBlock(
            first_record=builder.next_record,
            record_numbers=np.arange(builder.next_record, builder.next_record + len(reads)),
            names=[read.name for read in reads],
            sequence=sequence,
            quality=quality,
            offsets=np.cumsum([0, *(len(read.sequence) for read in reads)]),
            quarantined=[],
            qualities_known=bool(self._qualities_known),
        )

    def _decoded(self, frames: list[_Frame]) -> Iterator[_Read | Reason]:
        """Every frame's read, or why there is none."""
        whole = [frame.raw for frame in frames if frame.problem is None]
        records = self._records(whole)
        for frame in frames:
            yield frame.problem or self._read(next(records))

    def _records(self, raw: list[bytes]) -> Iterator[pysam.AlignedSegment | None]:
        """What htslib makes of the records; None for one that it refuses."""
        done = 0
        while done < len(raw):
            with tempfile.TemporaryFile() as file:
                file.write(self._header)
                file.writelines(raw[done:])
                file.seek(0)
                with pysam.AlignmentFile(file, "rb", check_sq=False) as records:
                    try:
                        for record in records.fetch(until_eof=True):
                            done += 1
                            yield record
                    except (OSError, ValueError):
                        pass
            if done < len(raw):
                done += 1
                yield None

    def _read(self, record: pysam.AlignedSegment | None) -> _Read | Reason:
        if record is None:
            return Reason.RECORD
        if not record.flag & _UNMAPPED and any(kind == _HARD_CLIP for kind, _ in record.cigartuples or ()):
            return Reason.CLIPPED
        sequence = (record.get_forward_sequence() or "").encode().translate(BASES)
        if 0 in sequence:
            return Reason.BASES
        values = record.get_forward_qualities()
        quality = None if values is None else values.tobytes()
        if self._qualities_known is None:
            self._qualities_known = quality is not None
        if self._qualities_known != (quality is not None):
            return Reason.SOME_QUALITIES
        if quality is not None and max(quality) > _HIGHEST_QUALITY:
            return Reason.QUALITY
        name = (record.query_name or "").encode()
        if record.flag & _PAIRED:
            name += b"/1" * bool(record.flag & _FIRST) + b"/2" * bool(record.flag & _LAST)
        return _Read(name, sequence, quality)

    def _next_frame(self, number: int) -> _Frame | None:
        """The next record that is a read, or None at the end."""
        while self._has(1):
            if not self._has(_FIXED.size):
                raise self._cut_off(number)
            size, name_bytes, operations, flag, bases = _FIXED.unpack_from(self._buffer, self._at)
            offset = self._offset + self._at
            if not _SMALLEST_BYTES <= size <= _LARGEST_BYTES:
                raise InvalidReads(
                    f"{self._text.source}: the data is damaged at record {number}, byte {offset} of the "
                    f"uncompressed data: it says that it has {size:,} bytes. Get the file again from where it was "
                    "made."
                )
            if not self._has(4 + size):
                raise self._cut_off(number)
            raw = self._buffer[self._at : self._at + 4 + size]
            self._at += 4 + size
            if flag & _NO_READ:
                continue
            fits = bases >= 0 and 32 + name_bytes + 4 * operations + (bases + 1) // 2 + bases <= size
            problem = Reason.EMPTY if bases == 0 else None
            return _Frame(offset, raw, bases, problem if fits and name_bytes else Reason.RECORD)
        if self._text.damage:
            raise self._cut_off(number)
        return None

    def _take_header(self) -> bytes:
        """Everything before the first record: the text, and the references of aligned reads."""
        end = 8
        end += self._number(end - 4) + 4
        for _ in range(self._number(end - 4)):
            end += 4 + self._number(end) + 4
        if not self._has(end):
            raise self._cut_off(1)
        self._at = end
        return self._buffer[:end]

    def _number(self, at: int) -> int:
        """The int32 at that place of the header."""
        if not self._has(at + 4):
            raise self._cut_off(1)
        (number,) = struct.unpack_from("<i", self._buffer, at)
        if not 0 <= number <= _LARGEST_BYTES:
            raise InvalidReads(f"{self._text.source}: the BAM header is damaged; get the file again")
        return int(number)

    def _has(self, size: int) -> bool:
        """Whether the buffer holds that much from here on, after what the stream has to give."""
        if len(self._buffer) - self._at >= size:
            return True
        pieces = [self._buffer[self._at :]]
        at_hand = len(pieces[0])
        while at_hand < size and (piece := self._text.read()):
            pieces.append(piece)
            at_hand += len(piece)
        self._offset += self._at
        self._at = 0
        self._buffer = b"".join(pieces)
        return at_hand >= size

    def _cut_off(self, number: int) -> InvalidReads:
        what = self._text.damage or "the data ends in the middle of a record"
        return InvalidReads(
            f"{self._text.source}: {what}; the last record before it is number {number - 1}. "
            "Get the file again from where it was made."
        )
