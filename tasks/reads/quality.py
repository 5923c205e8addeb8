"""Trimming of adapters and of low base quality, and which reads are good enough to keep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tasks.compiled import compiled
from tasks.reads.adapters import check_adapter, trim_adapter
from tasks.reads.block import ReadBlock, gathered

DUPLICATE = "duplicate"
TOO_SHORT = "too_short"
LOW_QUALITY = "low_quality"
TOO_MANY_N = "too_many_n"


@dataclass(frozen=True)
class FilteredBlock:
    """What a filter makes of one block.

    :param kept: the trimmed reads that passed, with their record numbers; its ``quarantined`` is the block's.
    :param rejected: reason -> number of reads; every reason is there, also with 0.
    :param with_adapter: reads that the adapter was cut from, kept or not.
    """

    kept: ReadBlock
    rejected: dict[str, int]
    with_adapter: int = 0


@dataclass(frozen=True)
class QualityFilter:
    """Trims, then judges what is left; a read is rejected for the first of the reasons in this order.

    As cutadapt does, quality is trimmed first, then the adapter is looked for in what is left. Where a source
    has no base qualities, nothing is trimmed or rejected because of them.

    :param trim_quality: cutoff of the 3' trimming (Phred), as of ``cutadapt -q``; 0 trims nothing.
    :param min_length: ``too_short`` below it, in bases after trimming; a read trimmed to nothing always is.
    :param min_mean_quality: ``low_quality`` below it: the mean of the Phred values after trimming.
    :param max_n_fraction: ``too_many_n`` above it: N per base after trimming, 0 to 1.
    :param adapters: 3' adapter of mate 1 and of mate 2, as of ``cutadapt -a`` and ``-A``; empty for none.
    :raises InvalidInput: an adapter is no sequence of IUPAC codes.
    """

    trim_quality: int
    min_length: int
    min_mean_quality: float
    max_n_fraction: float
    adapters: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        for adapter in self.adapters:
            check_adapter(adapter)

    def apply(self, block: ReadBlock, *, mate: int = 1, duplicate: np.ndarray | None = None) -> FilteredBlock:
        """Trim and judge every read of the block, which is left as it is.

        :param mate: 1, also of reads that are no pairs, or 2.
        :param duplicate: bool (reads): rejected as ``duplicate``, before all other reasons.
        """
        starts = block.offsets[:-1]
        stops = block.offsets[1:].copy()
        if block.qualities_known and self.trim_quality > 0:
            _trim_quality(block.quality, starts, stops, self.trim_quality)
        adapter = self.adapters[mate - 1]
        with_adapter = trim_adapter(adapter, block.sequence, starts, stops) if adapter else 0
        quality_sums, n_counts = _measured(block.sequence, block.quality, starts, stops)
        lengths = stops - starts
        bases = np.maximum(lengths, 1)
        reasons = {
            DUPLICATE: np.zeros(len(block), dtype=bool) if duplicate is None else duplicate,
            TOO_SHORT: lengths < max(self.min_length, 1),
            LOW_QUALITY: block.qualities_known & (quality_sums / bases < self.min_mean_quality),
            TOO_MANY_N: n_counts / bases > self.max_n_fraction,
        }
        keep = np.ones(len(block), dtype=bool)
        rejected = {}
        for reason, applies in reasons.items():
            rejected[reason] = int((keep & applies).sum())
            keep &= ~applies
        return FilteredBlock(_kept(block, np.flatnonzero(keep), stops), rejected, with_adapter)


def mean_qualities(block: ReadBlock) -> np.ndarray:
    """Mean Phred value of each read, float32 (reads)."""
    sums, _ = _measured(block.sequence, block.quality, block.offsets[:-1], block.offsets[1:])
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


@compiled
def _trim_quality(quality: np.ndarray, starts: np.ndarray, stops: np.ndarray, cutoff: int) -> None:
    """Set ``stops`` to where each read ends after trimming.

    The trimming is that of BWA and cutadapt: from the 3' end, sum up ``cutoff - quality``, stop where the sum
    falls below 0, and cut where it was largest.
    """
    for read in range(len(starts)):
        excess = largest = np.int64(0)
        for i in range(stops[read] - 1, starts[read] - 1, -1):
            excess += cutoff - np.int64(quality[i])
            if excess < 0:
                break
            if excess > largest:
                largest = excess
                stops[read] = i


@compiled
def _measured(
    sequence: np.ndarray, quality: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The sum of quality and the number of N of each read, int64."""
    sums = np.zeros(len(starts), dtype=np.int64)
    n_counts = np.zeros(len(starts), dtype=np.int64)
    for read in range(len(starts)):
        total = count = np.int64(0)
        # A loop for each sum, over a slice: these become vector instructions, 0.04 µs for 150 bases.
        for value in quality[starts[read] : stops[read]]:
            total += value
        for base in sequence[starts[read] : stops[read]]:
            count += base == 78  # N
        sums[read] = total
        n_counts[read] = count
    return sums, n_counts
