"""What the kernel must answer, computed plainly from the definition in ``tiles.py``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

Reference = Callable[..., tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def reference() -> Reference:
    return best_of_all_pairs


def best_of_all_pairs(vectors: np.ndarray, k: int, metric: str = "dot") -> tuple[np.ndarray, np.ndarray]:
    """Neighbour rows and float32 scores of every row, each (rows, min(k, rows - 1)), by brute force."""
    rows, dim = vectors.shape
    exact = vectors.astype(np.float64)
    lanes = np.zeros((16, rows, rows))
    for column in range(dim):
        if metric == "l2":
            lanes[column % 16] -= np.subtract.outer(exact[:, column], exact[:, column]) ** 2
        else:
            lanes[column % 16] += np.outer(exact[:, column], exact[:, column])
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    scores = lanes[0].astype(np.float32)
    if metric != "l2" and rows:
        largest = np.square(exact).sum(axis=1).max()
        np.testing.assert_allclose(scores, exact @ exact.T, rtol=1e-6, atol=1e-7 * largest + 1e-44)
    others = np.array([[other for other in range(rows) if other != row] for row in range(rows)], np.int64)
    others = others.reshape(rows, max(rows - 1, 0))
    of_others = np.take_along_axis(scores, others, axis=1) if rows else scores
    order = np.argsort(-of_others, axis=1, kind="stable")[:, :k]  # stable: equal scores stay in order of row
    return np.take_along_axis(others, order, axis=1), np.take_along_axis(of_others, order, axis=1)
