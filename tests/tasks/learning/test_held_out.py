from collections.abc import Callable

import pyarrow as pa
import pytest

from tasks.learning import held_out
from tasks.learning.held_out import split_reads
from tasks.learning.pairs import templates_of


def training_templates(reads: pa.Table) -> set[str]:
    return set(templates_of(reads["read_id"]).take(pa.array(split_reads(reads).training)).to_pylist())


def test_mates_are_on_one_side(reads_of: Callable[..., pa.Table]) -> None:
    reads = reads_of(500)
    split = split_reads(reads)
    assert 20 < split.templates < 90
    assert len(split.training) + 2 * split.templates == len(reads)
    assert len(training_templates(reads)) == len(split.training) // 2
    assert set(split.left.lengths) == {90}


def test_a_template_is_held_out_wherever_it_turns_up(reads_of: Callable[..., pa.Table]) -> None:
    reads = reads_of(300)
    part = reads.slice(200, 300)
    assert training_templates(part) == training_templates(reads) & set(
        templates_of(part["read_id"]).to_pylist()
    )


def test_a_single_read_is_halved() -> None:
    reads = pa.table({"read_id": [f"s:{number}" for number in range(300)], "sequence": ["AAACCCC"] * 300})
    split = split_reads(reads)
    assert set(split.left.lengths) == {3} and set(split.right.lengths) == {4}
    assert split.left.bases[:3].tobytes() == b"AAA" and split.right.bases[:4].tobytes() == b"CCCC"


def test_questions_are_limited(reads_of: Callable[..., pa.Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_out, "MAX_TEMPLATES", 10)
    reads = reads_of(500)
    split = split_reads(reads)
    assert 5 <= split.templates <= 10
    assert len(split.training) < 0.96 * len(reads)


def test_no_reads() -> None:
    split = split_reads(
        pa.table({"read_id": pa.array([], pa.string()), "sequence": pa.array([], pa.string())})
    )
    assert (len(split.training), split.templates) == (0, 0)
