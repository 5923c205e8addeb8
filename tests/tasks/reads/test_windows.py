"""Cutting long reads into windows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from tasks.errors import InvalidInput
from tasks.reads.block import ReadBlock
from tasks.reads.windows import cut_windows


def windows(block: ReadBlock, window: int, overlap: int) -> list[tuple[int, int, str]]:
    """(record number, start, bases) of every window."""
    cut, starts = cut_windows(block, window_bases=window, overlap_bases=overlap)
    assert starts.dtype == np.int32
    text = cut.sequence.tobytes().decode()
    borders = zip(cut.offsets[:-1], cut.offsets[1:], strict=True)
    return [
        (int(number), int(start), text[a:b])
        for number, start, (a, b) in zip(cut.record_numbers, starts, borders, strict=True)
    ]


def test_the_last_window_ends_with_the_read(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(("ACGTACGTAA", [*range(10)]), ("GG", [1, 2]), ("ACGT", [40] * 4))
    expected = [(1, 0, "ACGT"), (1, 3, "TACG"), (1, 6, "GTAA"), (2, 0, "GG"), (3, 0, "ACGT")]
    assert windows(block, 4, 1) == expected
    cut, _ = cut_windows(block, window_bases=4, overlap_bases=1)
    assert cut.names == [b"r1"] * 3 + [b"r2", b"r3"]
    assert cut.quality.tolist() == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 1, 2, 40, 40, 40, 40]


@pytest.mark.parametrize("length", [1, 6, 7, 8, 9, 10, 50, 51, 52])
def test_every_base_is_in_a_window_and_none_is_short(length: int, block_of: Callable[..., ReadBlock]) -> None:
    found = windows(block_of(("A" * length, [40] * length)), 7, 3)
    assert {start + place for _, start, bases in found for place in range(len(bases))} == set(range(length))
    assert {len(bases) for _, _, bases in found} == {min(length, 7)}
    starts = [start for _, start, _ in found]
    assert all(0 < b - a <= 4 for a, b in pairwise(starts))


def test_nothing_is_cut_where_no_read_is_longer(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(("ACGT", [40] * 4))
    for window in (0, 4):
        cut, starts = cut_windows(block, window_bases=window, overlap_bases=0)
        assert cut is block
        assert starts.tolist() == [0]


@pytest.mark.parametrize("overlap", [-1, 10, 11])
def test_an_overlap_that_never_gets_on_is_refused(overlap: int, block_of: Callable[..., ReadBlock]) -> None:
    with pytest.raises(InvalidInput, match="shorter than the window"):
        cut_windows(block_of(("A", [40])), window_bases=10, overlap_bases=overlap)
