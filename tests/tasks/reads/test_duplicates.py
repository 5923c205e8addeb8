"""A sequence that was there before is known again, and the sample of copies is that of the whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tasks.reads import duplicates
from tasks.reads.block import QuarantinedRecord, ReadBlock
from tasks.reads.duplicates import CopyCounts, SeenSequences, sequence_hashes

BlockOf = Callable[..., ReadBlock]


@pytest.fixture
def block(block_of: BlockOf) -> Callable[..., ReadBlock]:
    """``block("ACGT", None, "A", first_record=5)``: reads of these sequences; None is in quarantine."""

    def make(*sequences: str | None, first_record: int = 1) -> ReadBlock:
        numbers = [number for number, bases in enumerate(sequences, first_record) if bases is not None]
        reads = [(bases, [30] * len(bases)) for bases in sequences if bases is not None]
        lost = set(range(first_record, first_record + len(sequences))) - set(numbers)
        return replace(
            block_of(*reads),
            first_record=first_record,
            record_numbers=np.array(numbers, dtype=np.int64),
            quarantined=[QuarantinedRecord("x", number, 0, "?", "") for number in sorted(lost)],
        )

    return make


def repeated(seen: SeenSequences, *mates: ReadBlock) -> list[list[bool]]:
    return [found.tolist() for found in seen.repeated(mates)]


def test_a_sequence_is_known_again_in_its_part_and_in_later_ones(block: Callable[..., ReadBlock]) -> None:
    seen = SeenSequences()
    part = block("ACGT", "ACG", "ACGT", None, "A", "ACGN", "ACGT")
    assert repeated(seen, part) == [[False, False, True, False, False, True]]
    assert repeated(seen, block("TTT", "ACG", "N", "AA", first_record=8)) == [[False, True, False, False]]
    assert repeated(SeenSequences(), block("ACG")) == [[False]]


def test_mates_are_one_sequence_together(block: Callable[..., ReadBlock]) -> None:
    first = block("AC", "AC", "AC", "GT", "A", "ACGT", "AC", first_record=20)
    second = block("GT", "GA", "GT", "AC", "CGT", None, None, first_record=20)
    seen = SeenSequences()
    assert repeated(seen, first, second) == [
        [False, False, True, False, False, False, False],
        [False, False, True, False, False],
    ]
    lone = [block("C", None, "AC", first_record=27), block(None, "AC", None, first_record=27)]
    assert repeated(seen, *lone) == [[False, True], [False]]


def test_many_sequences_over_growing_tables(
    block: Callable[..., ReadBlock], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "_FIRST_SLOTS", 8)
    random = np.random.default_rng(5)
    seen, known = SeenSequences(), set()
    for _ in range(40):
        # A few bases and lengths: many repeats, many sequences that differ in one place or in length only.
        sequences = [
            "".join(random.choice(list("ACGTN"), random.integers(1, 5))) + "ACGT" * 10 for _ in range(50)
        ]
        expected = []
        for bases in sequences:
            expected.append(bases in known)
            known.add(bases)
        assert repeated(seen, block(*sequences)) == [expected]
    assert 300 < len(known) < 1000


def test_hashes_are_the_same_everywhere(block: Callable[..., ReadBlock]) -> None:
    hashes = sequence_hashes(block("A", "ACGTN" * 30)).tolist()
    assert [f"{key:016x}" for key in hashes] == ["528e36b5b40d4741", "dbcf37c9fbca9008"]


@pytest.mark.parametrize("parts", [1, 3, 50])
def test_copies_are_counted_exactly_however_the_reads_are_split(
    block: Callable[..., ReadBlock], monkeypatch: pytest.MonkeyPatch, parts: int
) -> None:
    monkeypatch.setattr(duplicates, "SAMPLED_SEQUENCES", 60)
    random = np.random.default_rng(1)
    sequences = [
        f"{'ACGT'[n % 4]}{'ACGT'[n // 4 % 4]}{'C' * (n // 16)}G" for n in random.geometric(0.02, 1000)
    ]
    counted = Counter(sequences)
    hashes = {bases: int(sequence_hashes(block(bases))[0]) for bases in counted}
    smallest = sorted(counted, key=hashes.__getitem__)[:60]

    order = random.permutation(1000)
    total = CopyCounts()
    for part in np.array_split(order, parts):
        total = CopyCounts.of(block(*(sequences[row] for row in part))) + total
    assert len(counted) > 100
    assert total.to_json() == {f"{hashes[bases]:016x}": counted[bases] for bases in smallest}
    assert CopyCounts.from_json(total.to_json()).to_json() == total.to_json()
