"""A block of reads in a few arrays, and the records that could not be read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tasks.compiled import compiled

UNKNOWN_QUALITY = 40  # Phred, given to bases whose source has no qualities


@dataclass(frozen=True)
class QuarantinedRecord:
    """A record that cannot be read, with what a person needs to find it.

    :param source: the file or object.
    :param record_number: 1-based, counting good and bad records of the source.
    :param byte_offset: of the record's first byte in the uncompressed text.
    :param reason: one of :class:`tasks.reads.block_builder.Reason`.
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


def selected(block: ReadBlock, rows: np.ndarray) -> ReadBlock:
    """The reads at ``rows``, which rise, with all of the block's quarantined records."""
    starts, ends = block.offsets[rows], block.offsets[rows + 1]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(ends - starts, out=offsets[1:])
    return replace(
        block,
        record_numbers=block.record_numbers[rows],
        names=[block.names[row] for row in rows.tolist()],
        sequence=gathered(block.sequence, starts, ends),
        quality=gathered(block.quality, starts, ends),
        offsets=offsets,
    )


@compiled
def gathered(source: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All ``source[start:end]``, one after the other, in one new array."""
    target = np.empty((ends - starts).sum(), dtype=source.dtype)
    filled = 0
    for start, end in zip(starts, ends):  # noqa: B905 (numba knows no strict)
        target[filled : filled + end - start] = source[start:end]
        filled += end - start
    return target
