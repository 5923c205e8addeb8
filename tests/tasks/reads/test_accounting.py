"""Every record is somewhere, and parts add up to the whole."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tasks.reads.accounting import QualityAccounting, UnbalancedAccounting
from tasks.reads.block import ReadBlock
from tasks.reads.block_builder import BlockLimits
from tasks.reads.length_bins import SHORTEST_OF_BIN
from tasks.reads.profile import ReadProfile
from tasks.reads.quality import QualityFilter
from tasks.reads.simulate import Library, random_genomes, simulate
from tasks.reads.sources import read_blocks

FILTER = QualityFilter(trim_quality=20, min_length=50, min_mean_quality=15, max_n_fraction=0.1)


def account(text: bytes, *, block_records: int) -> QualityAccounting:
    total = QualityAccounting()
    stream = io.BytesIO(text)
    limits = BlockLimits(records=block_records)
    for block in read_blocks(stream, source="x", quality_offset=33, limits=limits):
        part = QualityAccounting.of(block, FILTER.apply(block))
        part.check_closed()
        total += part
    return total


@pytest.fixture(scope="module")
def damaged() -> bytes:
    """300 reads of low quality; some have N, 30 a stray line behind them, 30 others a wrong byte."""
    library = Library(templates=300, read_length=100, error_rate=0.01, n_rate=0.02)
    (reads,) = simulate(random_genomes(2, 5000, seed=1), library)
    lines = reads.to_fastq().splitlines(keepends=True)
    records = [b"".join(lines[start : start + 4]) for start in range(0, len(lines), 4)]
    for number in range(0, 300, 10):
        records[number] += b"what is this\n"
        records[number + 5] = records[number + 5].replace(b"A", b"?", 1)
    return b"".join(records)


def test_accounting_closes_over_a_damaged_file(damaged: bytes) -> None:
    total = account(damaged, block_records=20_000)
    total.check_closed()
    assert total.records == 300 + 30
    assert total.quarantined == 30 + 30
    assert total.kept > 0
    assert total.rejected["too_short"] > 0
    assert total.before.bases == 100 * (300 - 30)
    assert 0 < total.after.bases < total.before.bases


@pytest.mark.parametrize("block_records", [1, 13, 150])
def test_parts_add_up_to_the_whole(damaged: bytes, block_records: int) -> None:
    whole = account(damaged, block_records=20_000)
    assert account(damaged, block_records=block_records).to_json() == whole.to_json()


def test_json_gives_the_same_accounting_back(damaged: bytes) -> None:
    total = account(damaged, block_records=100)
    text = json.dumps(total.to_json())
    again = QualityAccounting.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert json.dumps((again + again).to_json()) == json.dumps((total + total).to_json())


def test_a_profile_is_what_the_reads_are(block_of: Callable[..., ReadBlock]) -> None:
    profile = ReadProfile.of(block_of(("GGCA", [10, 20, 30, 40]), ("NN", [2, 3]), ("A" * 1500, [93] * 1500)))
    assert profile.bases == 1506
    assert {n: c for n, c in enumerate(profile.lengths.tolist()) if c} == {2: 1, 4: 1, 1009: 1}
    assert {n: c for n, c in enumerate(profile.mean_qualities.tolist()) if c} == {2: 1, 25: 1, 60: 1}
    assert {n: c for n, c in enumerate(profile.gc_percents.tolist()) if c} == {0: 2, 75: 1}
    assert profile.position_count[:5].tolist() == [3, 3, 2, 2, 1]
    assert profile.position_quality_sum[:5].tolist() == [105, 116, 123, 133, 93]
    assert profile.position_bases[:, :4].T.tolist() == [
        [1, 0, 1, 0, 1],
        [1, 0, 1, 0, 1],
        [1, 1, 0, 0, 0],
        [2, 0, 0, 0, 0],
    ]
    assert profile.copies.counts.tolist() == [1, 1, 1]
    assert len(profile.position_count) == 500


@pytest.mark.parametrize(
    ("length", "shortest", "next_shortest"),
    [
        (999, 999, 1000),
        (1000, 1000, 1045),
        (1044, 1000, 1045),
        (1045, 1045, 1091),
        (1999, 1916, 2000),
        (2000, 2000, 2089),
        (1 << 20, 1_024_000, 1_069_337),
    ],
)
def test_long_reads_are_counted_in_bins_of_a_sixteenth_of_a_doubling(
    block_of: Callable[..., ReadBlock], length: int, shortest: int, next_shortest: int
) -> None:
    profile = ReadProfile.of(block_of(("A" * length, [30] * length)))
    [counted] = np.flatnonzero(profile.lengths)
    assert SHORTEST_OF_BIN[counted : counted + 2].tolist() == [shortest, next_shortest]


def test_reads_without_qualities_are_in_no_histogram_of_quality(block_of: Callable[..., ReadBlock]) -> None:
    block = block_of(("GGCA", [40] * 4))
    known, unknown = ReadProfile.of(block), ReadProfile.of(replace(block, qualities_known=False))
    empty = {"mean_qualities": [], "position_quality_sum": [], "position_count": []}
    assert unknown.to_json() == {**known.to_json(), **empty}
    assert known.to_json()["position_count"] == [1, 1, 1, 1]
    both = known + unknown
    assert (both.reads, both.position_count[0], both.copies.counts.tolist()) == (2, 1, [2])


def test_a_lost_record_is_an_error(damaged: bytes) -> None:
    total = account(damaged, block_records=100)
    with pytest.raises(UnbalancedAccounting, match="330 records came in, but 329 are accounted for"):
        replace(total, kept=total.kept - 1).check_closed()
    rejected = {**total.rejected, "too_short": total.rejected["too_short"] + 1}
    with pytest.raises(UnbalancedAccounting, match=f"{total.kept - 1} kept.* {total.kept} after it"):
        replace(total, kept=total.kept - 1, rejected=rejected).check_closed()
