"""Base quality: trimming the 3' end, and which reads are good enough to keep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np

from tasks.reads.block import ReadBlock, gathered

TOO_SHORT = "too_short"
LOW_QUALITY = "low_quality"
TOO_MANY_N = "too_many_n"


@dataclass(frozen=True)
class FilteredBlock:
    """What a filter makes of one block.

    :param kept: the trimmed reads that passed, with their record numbers; its ``quarantined`` is the block's.
    :param rejected: reason -> number of reads; every reason is there, also with 0.
    """

    kept: ReadBlock
    rejected: dict[str, int]


@dataclass(frozen=True)
class QualityFilter:
    """Trims, then judges what is left; a read is rejected for the first of the reasons in this order.

    :param trim_quality: cutoff of the 3' trimming (Phred); 0 trims nothing.
    :param min_length: ``too_short`` below it, in bases after trimming; a read trimmed to nothing always is.
    :param min_mean_quality: ``low_quality`` below it: the mean of the Phred values after trimming.
    :param max_n_fraction: ``too_many_n`` above it: N per base after trimming, 0 to 1.
    """

    trim_quality: int
    min_length: int
    min_mean_quality: float
    max_n_fraction: float

    def apply(self, block: ReadBlock) -> FilteredBlock:
        """Trim and judge every read of the block, which is left as it is."""
        stops, quality_sums, n_counts = _measured(
            block.sequence, block.quality, block.offsets, self.trim_quality
        )
        lengths = stops - block.offsets[:-1]
        bases = np.maximum(lengths, 1)
        reasons = {
            TOO_SHORT: lengths < max(self.min_length, 1),
            LOW_QUALITY: quality_sums / bases < self.min_mean_quality,
            TOO_MANY_N: n_counts / bases > self.max_n_fraction,
        }
        keep = np.ones(len(block), dtype=bool)
        rejected = {}
        for reason, applies in reasons.items():
            rejected[reason] = int((keep & applies).sum())
            keep &= ~applies
        return FilteredBlock(_kept(block, np.flatnonzero(keep), stops), rejected)


def mean_qualities(block: ReadBlock) -> np.ndarray:
    """Mean Phred value of each read, float32 (reads)."""
    _, sums, _ = _measured(block.sequence, block.quality, block.offsets, 0)
    return (sums / np.maximum(np.diff(block.offsets), 1)).astype(np.float32)


def _kept(block: ReadBlock, rows: np.ndarray, stops: np.ndarray) -> ReadBlock:
    starts, ends = block.offsets[rows], stops[rows]
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


@numba.njit(nogil=True)
def _measured(
    sequence: np.ndarray, quality: np.ndarray, offsets: np.ndarray, cutoff: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each read ends after trimming, and the sum of quality and number of N up to there, int64.

    The trimming is that of BWA and cutadapt: from the 3' end, sum up ``cutoff - quality``, stop where the sum
    falls below 0, and cut where it was largest.
    """
    reads = len(offsets) - 1
    stops = offsets[1:].copy()
    sums = np.zeros(reads, dtype=np.int64)
    n_counts = np.zeros(reads, dtype=np.int64)
    for read in range(reads):
        start = offsets[read]
        if cutoff > 0:
            excess = largest = np.int64(0)
            for i in range(offsets[read + 1] - 1, start - 1, -1):
                excess += cutoff - np.int64(quality[i])
                if excess < 0:
                    break
                if excess > largest:
                    largest = excess
                    stops[read] = i
        total = count = np.int64(0)
        for i in range(start, stops[read]):
            total += np.int64(quality[i])
            count += sequence[i] == 78  # N
        sums[read] = total
        n_counts[read] = count
    return stops, sums, n_counts
