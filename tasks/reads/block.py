"""A block of reads in a few arrays, and the records that could not be read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class QuarantinedRecord:
    """A record that cannot be read, with what a person needs to find it.

    :param source: the file or object.
    :param record_number: 1-based, counting good and bad records of the source.
    :param byte_offset: of the record's first byte in the uncompressed text.
    :param reason: one of :class:`tasks.reads.fastq.Reason`.
    :param raw: its text, at most 4 KiB; bytes that are not UTF-8 as ``\\x..``.
    """

    source: str
    record_number: int
    byte_offset: int
    reason: str
    raw: str


@dataclass(frozen=True)
class ReadBlock:
    """Reads of consecutive record slots of one source.

    Read ``i`` has ``sequence[offsets[i]:offsets[i + 1]]`` and the same range of ``quality``.

    :param first_record: 1-based number of the first record slot, good or bad.
    :param record_numbers: int64, the record number of each read.
    :param names: header lines without ``@``, comments included.
    :param sequence: uint8, ASCII ``ACGTN``.
    :param quality: uint8, Phred.
    :param offsets: int64, one more than there are reads, from 0.
    :param quarantined: the block's records that could not be read; slots = reads + quarantined.
    :param qualities_known: False where the source has none; ``quality`` is then 40 throughout.
    """

    first_record: int
    record_numbers: np.ndarray
    names: list[bytes]
    sequence: np.ndarray
    quality: np.ndarray
    offsets: np.ndarray
    quarantined: list[QuarantinedRecord]
    qualities_known: bool = True

    def __len__(self) -> int:
        return len(self.names)

    @property
    def slots(self) -> int:
        """Records of the source that this block accounts for, good and bad."""
        return len(self.names) + len(self.quarantined)


def joined(first_record: int, runs: list[ReadBlock], quarantined: list[QuarantinedRecord]) -> ReadBlock:
    """One block of consecutive runs; most blocks are one run and are not copied."""
    runs = [run for run in runs if len(run)] or runs[:1]
    if len(runs) == 1:
        return replace(runs[0], first_record=first_record, quarantined=quarantined)
    offsets = np.zeros(sum(map(len, runs)) + 1, dtype=np.int64)
    np.cumsum(np.concatenate([np.diff(run.offsets) for run in runs]), out=offsets[1:])
    return ReadBlock(
        first_record=first_record,
        record_numbers=np.concatenate([run.record_numbers for run in runs]),
        names=[name for run in runs for name in run.names],
        sequence=np.concatenate([run.sequence for run in runs]),
        quality=np.concatenate([run.quality for run in runs]),
        offsets=offsets,
        quarantined=quarantined,
    )


def gathered(source: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All ``source[start:end]``, which rise and do not overlap, in one new array.

    By a mask: 2 ms for 20,000 reads of 150 bases, half the time of slicing and joining.
    """
    if not len(starts):
        return np.empty(0, dtype=source.dtype)
    borders = np.stack([starts, ends], axis=1).ravel()
    inside = np.repeat(np.arange(1, len(borders)) % 2 == 1, np.diff(borders))
    return source[starts[0] : ends[-1]][inside]
