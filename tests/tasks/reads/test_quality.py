"""Trimming is cutadapt's; a read is rejected for one reason, the first that applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tasks.reads.block import ReadBlock
from tasks.reads.quality import QualityFilter, mean_qualities

KEEP_ALL = QualityFilter(trim_quality=0, min_length=1, min_mean_quality=0, max_n_fraction=1)


def trimmed_length(quality: list[int], cutoff: int) -> int:
    """The algorithm as cutadapt's documentation gives it, for one read.

    Subtract the cutoff from all qualities, sum up from the end, and cut at the index where the sum is lowest;
    the summing stops as soon as the sum is above zero.
    """
    total = lowest = 0
    cut = len(quality)
    for index in reversed(range(len(quality))):
        total += quality[index] - cutoff
        if total > 0:
            break
        if total < lowest:
            lowest, cut = total, index
    return cut


def test_the_example_of_cutadapts_documentation(block_of: Callable[..., ReadBlock]) -> None:
    quality = [42, 40, 26, 27, 8, 7, 11, 4, 2, 3]
    found = QualityFilter(10, 1, 0, 1).apply(block_of(("ACGTACGTAC", quality)))
    assert found.kept.sequence.tobytes() == b"ACGT"
    assert found.kept.quality.tolist() == [42, 40, 26, 27]


@pytest.mark.parametrize("cutoff", [1, 10, 20, 30])
def test_trimming_is_the_published_algorithm(block_of: Callable[..., ReadBlock], cutoff: int) -> None:
    random = np.random.default_rng(cutoff)
    reads = []
    for length in random.integers(1, 80, size=300).tolist():
        decline = np.linspace(40, random.integers(0, 40), length) + random.normal(0, 8, length)
        reads.append(("A" * length, np.clip(decline, 0, 93).astype(int).tolist()))
    kept = QualityFilter(cutoff, 1, 0, 1).apply(block_of(*reads)).kept
    expected = {number: trimmed_length(quality, cutoff) for number, (_, quality) in enumerate(reads, 1)}
    lengths = dict(zip(kept.record_numbers.tolist(), np.diff(kept.offsets).tolist(), strict=True))
    assert lengths == {number: length for number, length in expected.items() if length}
    assert min(expected.values()) < 5 < max(expected.values())


def test_a_cutoff_of_0_trims_nothing(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(("ACGT", [0, 0, 0, 0]), ("GG", [2, 2]))
    kept = KEEP_ALL.apply(block).kept
    assert kept.names == block.names
    assert np.array_equal(kept.sequence, block.sequence)
    assert np.array_equal(kept.quality, block.quality)


def test_each_reason_rejects_and_the_first_counts(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(
        ("ACGTA", [30] * 5),
        ("ACG", [30] * 3),
        ("ACGTA", [19] * 5),
        ("ANNGT", [30] * 5),
        ("NNNNN", [2] * 5),
        ("ANGTA", [20] * 5),
    )
    found = QualityFilter(trim_quality=0, min_length=4, min_mean_quality=20, max_n_fraction=0.2).apply(block)
    assert found.rejected == {"duplicate": 0, "too_short": 1, "low_quality": 2, "too_many_n": 1}
    assert found.kept.record_numbers.tolist() == [1, 6]
    assert found.kept.names == [b"r1", b"r6"]
    assert found.kept.sequence.tobytes() == b"ACGTAANGTA"
    assert found.kept.offsets.tolist() == [0, 5, 10]


def test_length_and_quality_are_judged_after_trimming(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(("ACGTACGT", [40, 40, 40, 40, 2, 2, 2, 2]), ("ACGT", [2, 2, 2, 2]))
    judge = {"min_mean_quality": 39, "max_n_fraction": 1}
    assert QualityFilter(10, 4, **judge).apply(block).kept.names == [b"r1"]
    assert QualityFilter(10, 5, **judge).apply(block).rejected["too_short"] == 2
    assert QualityFilter(0, 4, **judge).apply(block).rejected["low_quality"] == 2


def test_a_block_without_reads_passes(block_of: Callable[..., ReadBlock]) -> None:
    found = QualityFilter(20, 50, 20, 0.1).apply(block_of())
    assert len(found.kept) == 0
    assert found.rejected == dict.fromkeys(["duplicate", "too_short", "low_quality", "too_many_n"], 0)


def test_mean_qualities_are_one_per_read(block_of: Callable[..., ReadBlock]) -> None:
    means = mean_qualities(block_of(("ACGT", [10, 20, 30, 41]), ("A", [7])))
    assert means.dtype == np.float32
    assert means.tolist() == [25.25, 7.0]


def test_a_duplicate_is_rejected_before_all_else(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(("ACGT", [30] * 4), ("AC", [30] * 2), ("ACGT", [30] * 4), ("N", [2]))
    found = QualityFilter(0, 3, 20, 0.1).apply(block, duplicate=np.array([False, True, True, False]))
    assert found.rejected == {"duplicate": 2, "too_short": 1, "low_quality": 0, "too_many_n": 0}
    assert found.kept.names == [b"r1"]


def test_qualities_that_are_not_known_are_not_judged(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(("ACGT", [40] * 4), ("NNNN", [40] * 4))
    unknown = replace(block, qualities_known=False)
    strict = QualityFilter(41, 1, 41, 0.5)
    assert strict.apply(block).rejected["too_short"] == 2
    assert strict.apply(unknown).rejected == {
        **dict.fromkeys(strict.apply(block).rejected, 0),
        "too_many_n": 1,
    }
    assert strict.apply(unknown).kept.sequence.tobytes() == b"ACGT"
