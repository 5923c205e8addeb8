"""Batches of reads of similar length, cut by the number of tokens that they take with padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def token_batches(tokens: np.ndarray, *, budget: int) -> Iterator[np.ndarray]:
    """Row numbers of one batch after another, each row once, longest rows first.

    Padded to its longest row, a batch has at most ``budget`` tokens; a row that is longer by itself is a batch
    of one. The largest batch comes first, so that memory that does not suffice is seen at once.

    :param tokens: tokens of each row, integers of 1 or more.
    """
    order = np.argsort(-tokens, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // int(tokens[order[start]]))
        yield order[start : start + rows]
        start += rows
