"""How pure pairs are, without labels: which share of them is of one genome.

The two sequences of a held-out template, surely of one genome, have a mean cosine s; two sequences drawn at random
have r. Pairs of which a share p is of one genome and the rest is random have, all else equal, p s + (1 - p) r. So p
is estimated as (mean - r) / (s - r), all cut to the same lengths. It is an estimate: the encoder that gives the
cosines also found the neighbours, so that their share is told too high; and reads from afar are less alike than the
two of a template, so that theirs is told too low.
"""

from __future__ import annotations

import numpy as np

from tasks.encoders.model import EncoderModel
from tasks.encoders.sequences import Sequences
from tasks.learning.pairs import Mixture

PAIRS = 2_000
"""Of each source: the standard error of a share is then about two percentage points."""
MIN_TEMPLATES = 20
SEED = 7


def purities(encoder: EncoderModel, pairs: Mixture, left: Sequences, right: Sequences) -> dict[str, float]:
    """The estimated share of pairs of one genome, 0 to 1, by the name of their source.

    :param left, right: the two sequences of each held-out template; with fewer than 20 nothing is estimated.
    """
    if len(left) < MIN_TEMPLATES:
        return {}
    random = np.random.default_rng(SEED)
    found: dict[str, list[float]] = {}
    for source in pairs.sources:
        drawn = source.draw(random, PAIRS)
        templates = random.integers(0, len(left), PAIRS)
        (name,) = source.names
        found.setdefault(name, []).append(
            _share(encoder, (left, right), templates, (drawn.left, drawn.right))
        )
    return {name: round(float(np.mean(shares)), 3) for name, shares in found.items()}


def _share(
    encoder: EncoderModel,
    sure: tuple[Sequences, Sequences],
    templates: np.ndarray,
    drawn: tuple[Sequences, Sequences],
) -> float:
    """Of one source; template ``templates[i]`` is compared with pair i."""
    lengths = [
        np.minimum(known.lengths[templates], other.lengths) for known, other in zip(sure, drawn, strict=True)
    ]
    of_one_genome, _ = _cosines(encoder, sure, templates, lengths)
    mean, by_chance = _cosines(encoder, drawn, np.arange(len(templates)), lengths)
    if of_one_genome <= by_chance:  # the encoder tells nothing apart
        return 0.0
    return float(np.clip((mean - by_chance) / (of_one_genome - by_chance), 0, 1))


def _cosines(
    encoder: EncoderModel,
    pairs: tuple[Sequences, Sequences],
    rows: np.ndarray,
    lengths: list[np.ndarray],
) -> tuple[float, float]:
    """Mean cosine of the first so many bases of the pairs in ``rows``, and of random pairs of them."""
    forward = np.zeros(len(rows), bool)
    left, right = (
        encoder.encode_sequences(side.windows(rows, 0 * rows, length, forward))
        for side, length in zip(pairs, lengths, strict=True)
    )
    together = np.einsum("ij,ij->i", left, right).mean()
    return float(together), float(left.mean(axis=0) @ right.mean(axis=0))
