"""How good an encoder is: without labels, does a held-out sequence find the other one of its template? With labels,
are a read's neighbours of its species?

Template = what was one molecule on the sequencer: a read, or the two mates of a fragment. Its two sequences
are the mates, or the two halves of a single read, which share no base.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tasks.encoders.model import EncoderModel
from tasks.encoders.sequences import Sequences
from tasks.learning.panel import Panel

BLOCK_ROWS = 1024  # a block of scores against 16,000 others is 64 MB
UNLIKE_PERCENT = 5
BOOTSTRAP_DRAWS = 10_000
EQUAL = 1e-6  # scores nearer than this are equal: by its place in a block a float32 product differs by 4e-7


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
class SpeciesPrecision:
    """precision@k of reads of known species.

    :param shares: of each read the share of its ``k`` nearest others that are of its species, float (reads,).
    :param species: of each read, str (reads,).
    """

    k: int
    shares: np.ndarray
    species: np.ndarray

    def of(self, species: str) -> np.ndarray:
        """The shares of one species' reads."""
        return np.asarray(self.shares[self.species == species])

    def by_species(self) -> dict[str, float]:
        """The mean share of every species."""
        return {str(species): float(self.of(species).mean()) for species in np.unique(self.species)}


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
    for rows, scores in _scores(vectors):
        partner = np.take_along_axis(scores, (rows[:, None] + templates) % (2 * templates), axis=1)
        ranks[rows] = (scores >= partner - EQUAL).sum(axis=1) - 1
    return Retrieval(ranks.reshape(2, templates).T)


def species_precision(encoder: EncoderModel, panel: Panel, *, k: int = 10) -> SpeciesPrecision:
    """Which share of every panel read's ``k`` nearest other reads, by dot product, is of its species.

    Of equal scores those of other species come first, so an encoder that gives every read the same vector finds
    nothing. The panel has more than ``k`` reads.
    """
    _, codes = np.unique(panel.species, return_inverse=True)
    shares = np.empty(len(codes))
    for rows, scores in _scores(encoder.encode_sequences(panel.sequences)):
        last = -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
        nearer = scores > last + EQUAL
        as_near = (scores >= last - EQUAL) & ~nearer
        same = codes[rows][:, None] == codes
        others_first = nearer.sum(axis=1) + (as_near & ~same).sum(axis=1)
        shares[rows] = ((nearer & same).sum(axis=1) + np.maximum(k - others_first, 0)) / k
    return SpeciesPrecision(k, shares, panel.species)


def share_unlike(encoder: EncoderModel, panel: Panel, reads: Sequences) -> float:
    """Which share of ``reads`` is further from the nearest read of the panel than nearly all of its own reads are.

    Nearly all: but for :data:`UNLIKE_PERCENT`, so that about so many are unlike in a batch of the panel's species.
    Reads shorter than the panel's are further from all others, whatever they are of.
    """
    known = encoder.encode_sequences(panel.sequences)
    own = np.concatenate([scores.max(axis=1) for _, scores in _scores(known)])
    furthest = np.quantile(own, UNLIKE_PERCENT / 100)
    vectors = encoder.encode_sequences(reads)
    blocks = (vectors[start : start + BLOCK_ROWS] for start in range(0, len(vectors), BLOCK_ROWS))
    unlike = sum(int(((block @ known.T).max(axis=1) < furthest).sum()) for block in blocks)
    return unlike / max(1, len(vectors))


def bootstrap_difference(before: np.ndarray, after: np.ndarray, *, seed: int = 0) -> Interval:
    """Mean of ``after - before`` per template (or read), and its interval over them drawn anew with replacement.

    They are paired, so what makes some of them hard for both encoders cancels. Values are few (hits differ by -1
    to 1 in halves, shares in tenths), so each draw is one multinomial over them: exact, and fast.
    """
    values, counts = np.unique(after - before, return_counts=True)
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=BOOTSTRAP_DRAWS)
    low, high = np.quantile(drawn @ values / total, [0.025, 0.975])
    return Interval(float(low), float(np.mean(after - before)), float(high))


def _scores(vectors: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Block by block the rows and their dot products with all rows, float32 (block, rows); -inf with themselves."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, len(vectors)))
        scores = vectors[rows] @ vectors.T
        scores[rows - start, rows] = -np.inf
        yield rows, scores
