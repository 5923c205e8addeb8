"""What a search hands to the job that writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hpc_jobs.mpi_dna_seq.tiles import Best


@dataclass(frozen=True)
class Found:
    """What one rank has found, exactly or not, and what that took.

    :param first_row: of the consecutive rows that ``best`` has the lists of.
    :param part: its place among the parts of the result; None where another rank has these rows.
    :param took: fields of :class:`~hpc_jobs.mpi_dna_seq.metrics.RankMetrics`, but that of the writing.
    :param about: how it was found, for ``metrics.json``; ``approximate`` in it goes into the manifest too.
    :param finish: called by all ranks once the result is written; ``best`` is gone then.
    """

    first_row: int
    best: Best
    part: int | None
    took: dict[str, Any]
    about: dict[str, Any]
    finish: Callable[[], None]
