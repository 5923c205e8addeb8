"""How pure pairs are, without labels: which share of them is of one genome.

The two of a pair that is surely of one genome, the reads' own, have a mean cosine s; two sequences drawn at random
have r. Pairs of which a share p is of one genome and the rest is random have, all else equal, p s + (1 - p) r. So
p is estimated as (mean - r) / (s - r), with all pairs cut to the lengths of the surest ones. It is an estimate: the
encoder that gives the cosines found the neighbours, whose share is so told too high; pairs from afar are less alike
than two windows of one read, so theirs is told too low.
"""

from __future__ import annotations

import numpy as np

from tasks.encoders.model import EncoderModel
from tasks.encoders.sequences import Sequences
from tasks.learning.pairs import Drawn, Mixture

PAIRS = 2_000
"""Of each source: the standard error of a share is then about two percentage points."""
SEED = 7


def purities(encoder: EncoderModel, pairs: Mixture) -> dict[str, float]:
    """The estimated share of pairs of one genome, by the name of their source, 0 to 1; the first source has 1."""
    random = np.random.default_rng(SEED)
    drawn = [(source.names, source.draw(random, PAIRS)) for source in pairs.sources]
    surest = drawn[0][1]
    found = {}
    for names, each in drawn:
        for number, name in enumerate(names):
            of_name = np.flatnonzero(each.source == number)
            if len(of_name):
                found[name] = _share(encoder, surest, each, of_name)
    return found


def _share(encoder: EncoderModel, surest: Drawn, drawn: Drawn, rows: np.ndarray) -> float:
    count = len(rows)
    lengths = [
        np.minimum(known.lengths[:count], other.lengths[rows])
        for known, other in ((surest.left, drawn.left), (surest.right, drawn.right))
    ]
    sure, _ = _cosines(encoder, surest, np.arange(count), lengths)
    mean, by_chance = _cosines(encoder, drawn, rows, lengths)
    if sure <= by_chance:  # the encoder tells nothing apart
        return 0.0
    return round(float(np.clip((mean - by_chance) / (sure - by_chance), 0, 1)), 3)


def _cosines(
    encoder: EncoderModel, drawn: Drawn, rows: np.ndarray, lengths: list[np.ndarray]
) -> tuple[float, float]:
    """Mean cosine of the first so many bases of the pairs in ``rows``, and of random pairs of them."""
    left, right = (
        encoder.encode_sequences(_begins(side, rows, length))
        for side, length in zip((drawn.left, drawn.right), lengths, strict=True)
    )
    together = np.einsum("ij,ij->i", left, right).mean()
    return float(together), float(left.mean(axis=0) @ right.mean(axis=0))


def _begins(sequences: Sequences, rows: np.ndarray, lengths: np.ndarray) -> Sequences:
    return sequences.windows(rows, 0 * rows, lengths, np.zeros(len(rows), bool))
