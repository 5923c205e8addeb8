"""Where every record went, and what the reads looked like before and after the filter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import StrandloopError
from tasks.reads.block import ReadBlock
from tasks.reads.profile import ReadProfile
from tasks.reads.quality import FilteredBlock


class UnbalancedAccounting(StrandloopError):
    """Records were lost or counted twice: a fault of the program, never of the data."""

    retryable = False


@dataclass(frozen=True)
class QualityAccounting:
    """Counts of records and profiles of reads; parts of a batch are summed with ``+``.

    :param records: record slots of the source, good and bad.
    :param kept: reads that passed the filter.
    :param rejected: reason -> reads that did not.
    :param quarantined: records that could not be read.
    :param with_adapter: reads that an adapter was cut from, kept or not.
    :param before: every read that could be read.
    :param after: the kept reads, trimmed.
    """

    records: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    with_adapter: int = 0
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
            with_adapter=filtered.with_adapter,
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
            with_adapter=self.with_adapter + other.with_adapter,
            before=self.before + other.before,
            after=self.after + other.after,
        )

    def check_closed(self) -> None:
        """Raise :class:`UnbalancedAccounting` unless every record was kept, rejected or quarantined.

        The reads in the profiles, which are counted apart, must be as many.
        """
        accounted = self.kept + sum(self.rejected.values()) + self.quarantined
        read, kept = self.before.reads, self.after.reads
        if self.records != accounted or self.records != read + self.quarantined or self.kept != kept:
            raise UnbalancedAccounting(
                f"{self.records} records came in, but {accounted} are accounted for: {self.kept} kept, "
                f"{self.rejected} rejected, {self.quarantined} quarantined; {read} reads were profiled before "
                f"the filter and {kept} after it. Nothing of this may be published; report it with the batch's "
                "quality.json."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; see :class:`ReadProfile` for the lists."""
        return {
            "records": self.records,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "quarantined": self.quarantined,
            "with_adapter": self.with_adapter,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> QualityAccounting:
        """What :meth:`to_json` gave."""
        profiles = {name: ReadProfile.from_json(value[name]) for name in ("before", "after")}
        return cls(**{**value, "rejected": dict(value["rejected"]), **profiles})
