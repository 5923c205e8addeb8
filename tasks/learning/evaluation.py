"""How good an encoder is, without labels: does a held-out sequence find the other one of its template?

Template = what was one molecule on the sequencer: a read, or the two mates of a fragment. Its two sequences
are the mates, or the two halves of a single read, which share no base.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.encoders.model import EncoderModel
from tasks.encoders.sequences import Sequences

BLOCK_ROWS = 1024  # a block of scores against 16,000 others is 64 MB
BOOTSTRAP_DRAWS = 10_000


@dataclass(frozen=True)
class Retrieval:
    """Ranks of partners: row i is template i, its columns its two sequences; 0 = the nearest of all others."""

    ranks: np.ndarray

    def hits(self, k: int) -> np.ndarray:
        """Per template the share of its two sequences whose partner is among the ``k`` nearest: 0, 0.5 or 1."""
        return np.asarray((self.ranks < k).mean(axis=1))

    def recall(self, k: int) -> float:
        """Mean of :meth:`hits`."""
        return float(self.hits(k).mean())


@dataclass(frozen=True)
class Interval:
    """A difference and its 95 % confidence interval."""

    low: float
    mean: float
    high: float


def retrieval(encoder: EncoderModel, left: Sequences, right: Sequences) -> Retrieval:
    """Rank every sequence's partner among all other held-out sequences of both sides by dot product.

    Equal scores count against the partner, so an encoder that gives every read the same vector finds nothing.
    """
    templates = len(left)
    vectors = np.concatenate([encoder.encode_sequences(left), encoder.encode_sequences(right)])
    ranks = np.empty(2 * templates, dtype=np.int64)
    for start in range(0, 2 * templates, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, 2 * templates))
        scores = vectors[rows] @ vectors.T
        here = rows - start
        scores[here, rows] = -np.inf
        partner = scores[here, (rows + templates) % (2 * templates)]
        ranks[rows] = (scores >= partner[:, None]).sum(axis=1) - 1
    return Retrieval(ranks.reshape(2, templates).T)


def bootstrap_difference(before: np.ndarray, after: np.ndarray, *, seed: int = 0) -> Interval:
    """Mean of ``after - before`` per template, and its interval over templates drawn anew with replacement.

    The templates are paired, so what makes some of them hard for both encoders cancels. Values are few
    (hits differ by -1 to 1 in halves), so each draw is one multinomial over them: exact, and fast.
    """
    values, counts = np.unique(after - before, return_counts=True)
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=BOOTSTRAP_DRAWS)
    low, high = np.quantile(drawn @ values / total, [0.025, 0.975])
    return Interval(float(low), float(np.mean(after - before)), float(high))
