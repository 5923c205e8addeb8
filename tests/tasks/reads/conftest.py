"""Blocks of reads made by hand, for whatever takes one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tasks.reads.block import ReadBlock


@pytest.fixture
def block_of() -> Callable[..., ReadBlock]:
    """``block_of(("ACGT", [40, 40, 2, 2]), ...)``: a block of these reads, record numbers from 1."""

    def block(*reads: tuple[str, list[int]]) -> ReadBlock:
        return ReadBlock(
            first_record=1,
            record_numbers=np.arange(1, len(reads) + 1),
            names=[b"r%d" % number for number in range(1, len(reads) + 1)],
            sequence=np.array([ord(base) for bases, _ in reads for base in bases], dtype=np.uint8),
            quality=np.array([value for _, quality in reads for value in quality], dtype=np.uint8),
            offsets=np.cumsum([0, *(len(bases) for bases, _ in reads)]),
            quarantined=[],
        )

    return block
