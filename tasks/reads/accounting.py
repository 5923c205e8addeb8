"""Where every record went, and what the reads looked like before and after the filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numba
import numpy as np

from tasks.errors import StrandloopError
from tasks.reads.block import ReadBlock
from tasks.reads.quality import FilteredBlock

LONGEST_BINNED = 1000
HIGHEST_QUALITY = 60
POSITIONS = 500


class UnbalancedAccounting(StrandloopError):
    """Records were lost or counted twice: a fault of the program, never of the data."""

    retryable = False


def _zeros(size: int) -> Callable[[], np.ndarray]:
    return lambda: np.zeros(size, dtype=np.int64)


@dataclass(frozen=True)
class ReadProfile:
    """Sums over reads; all arrays are int64.

    :param bases: number of bases.
    :param lengths: reads by length, 0 to 1000 bases, and longer ones in the last bin (1002).
    :param mean_qualities: reads by mean Phred value rounded down, 0 to 60; higher ones count as 60 (61).
    :param gc_percents: reads by G + C among their A, C, G and T, percent rounded; without any, 0 (101).
    :param position_quality_sum: Phred values summed per position of the read, the first 500 (500).
    :param position_count: reads that have that position (500).
    """

    bases: int = 0
    lengths: np.ndarray = field(default_factory=_zeros(LONGEST_BINNED + 2))
    mean_qualities: np.ndarray = field(default_factory=_zeros(HIGHEST_QUALITY + 1))
    gc_percents: np.ndarray = field(default_factory=_zeros(101))
    position_quality_sum: np.ndarray = field(default_factory=_zeros(POSITIONS))
    position_count: np.ndarray = field(default_factory=_zeros(POSITIONS))

    @classmethod
    def of(cls, block: ReadBlock) -> ReadProfile:
        """The profile of a block's reads."""
        profile = cls(bases=len(block.sequence))
        _count_reads(
            block.sequence,
            block.quality,
            block.offsets,
            profile.lengths,
            profile.mean_qualities,
            profile.gc_percents,
            profile.position_quality_sum,
            profile.position_count,
        )
        return profile

    def __add__(self, other: ReadProfile) -> ReadProfile:
        return ReadProfile(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def to_json(self) -> dict[str, Any]:
        """Lists without their trailing zeros."""
        lists = {f.name: np.trim_zeros(getattr(self, f.name), "b").tolist() for f in fields(self)[1:]}
        return {"bases": self.bases, **lists}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReadProfile:
        """What :meth:`to_json` gave."""
        profile = cls(bases=value["bases"])
        for f in fields(cls)[1:]:
            getattr(profile, f.name)[: len(value[f.name])] = value[f.name]
        return profile


@dataclass(frozen=True)
class QualityAccounting:
    """Counts of records and profiles of reads; parts of a batch are summed with ``+``.

    :param records: record slots of the source, good and bad.
    :param kept: reads that passed the filter.
    :param rejected: reason -> reads that did not.
    :param quarantined: records that could not be read.
    :param before: every read that could be read.
    :param after: the kept reads, trimmed.
    """

    records: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    before: ReadProfile = field(default_factory=ReadProfile)
    after: ReadProfile = field(default_factory=ReadProfile)

    @classmethod
    def of(cls, block: ReadBlock, filtered: FilteredBlock) -> QualityAccounting:
        """The accounting of one block and what a filter made of it."""
        return cls(
            records=block.slots,
            kept=len(filtered.kept),
            rejected=dict(filtered.rejected),
            quarantined=len(block.quarantined),
            before=ReadProfile.of(block),
            after=ReadProfile.of(filtered.kept),
        )

    def __add__(self, other: QualityAccounting) -> QualityAccounting:
        rejected = Counter(self.rejected)
        rejected.update(other.rejected)
        return QualityAccounting(
            records=self.records + other.records,
            kept=self.kept + other.kept,
            rejected=dict(rejected),
            quarantined=self.quarantined + other.quarantined,
            before=self.before + other.before,
            after=self.after + other.after,
        )

    def check_closed(self) -> None:
        """Raise :class:`UnbalancedAccounting` unless every record was kept, rejected or quarantined."""
        accounted = self.kept + sum(self.rejected.values()) + self.quarantined
        if self.records != accounted:
            raise UnbalancedAccounting(
                f"{self.records} records came in, but {accounted} are accounted for: {self.kept} kept, "
                f"{self.rejected} rejected, {self.quarantined} quarantined. Nothing of this may be published; "
                "report it with the batch's quality.json."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; see :class:`ReadProfile` for the lists."""
        return {
            "records": self.records,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "quarantined": self.quarantined,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> QualityAccounting:
        """What :meth:`to_json` gave."""
        profiles = {name: ReadProfile.from_json(value[name]) for name in ("before", "after")}
        return cls(**{**value, "rejected": dict(value["rejected"]), **profiles})


@numba.njit(nogil=True)
def _count_reads(
    sequence: np.ndarray,
    quality: np.ndarray,
    offsets: np.ndarray,
    lengths: np.ndarray,
    mean_qualities: np.ndarray,
    gc_percents: np.ndarray,
    position_quality_sum: np.ndarray,
    position_count: np.ndarray,
) -> None:
    """Add each read to the histograms of :class:`ReadProfile`."""
    for read in range(len(offsets) - 1):
        start, stop = offsets[read], offsets[read + 1]
        length = stop - start
        total = gc = called = np.int64(0)
        for i in range(start, stop):
            base = sequence[i]
            total += np.int64(quality[i])
            gc += (base == 71) | (base == 67)  # G, C
            called += base != 78  # N
        lengths[min(length, len(lengths) - 1)] += 1
        mean_qualities[min(total // max(length, 1), len(mean_qualities) - 1)] += 1
        gc_percents[(200 * gc + called) // (2 * called) if called else 0] += 1
        for position in range(min(length, len(position_count))):
            position_quality_sum[position] += np.int64(quality[start + position])
            position_count[position] += 1
