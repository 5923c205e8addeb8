import numpy as np
import pytest

from tasks.encoders.batching import token_batches


@pytest.mark.parametrize("budget", [1, 64, 100_000])
def test_each_row_once_within_the_budget_longest_first(budget: int) -> None:
    tokens = np.random.default_rng(0).integers(1, 90, 500)
    batches = list(token_batches(tokens, budget=budget))
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert [int(tokens[rows].max()) for rows in batches] == sorted(
        (int(tokens[rows].max()) for rows in batches), reverse=True
    )
    assert all(tokens[rows].max() * len(rows) <= budget or len(rows) == 1 for rows in batches)


def test_sorted_batches_hold_little_padding() -> None:
    tokens = np.random.default_rng(0).integers(1, 500, 2_000)
    padded = sum(tokens[rows].max() * len(rows) for rows in token_batches(tokens, budget=8_192))
    assert padded < 1.1 * tokens.sum()


def test_no_rows_no_batches() -> None:
    assert list(token_batches(np.zeros(0, dtype=np.int64), budget=64)) == []
