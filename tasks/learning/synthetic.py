"""Pairs of made-up species: what keeps an encoder able to tell apart species that a batch has nothing of.

Trained on the species of a batch alone, an encoder gives up what does not tell *these* apart. So some of its pairs
are windows of sequences that nobody sequenced, of species as unlike each other as chance makes them: training on
variations beyond what is there ("domain randomization", Tobin et al., IROS 2017), here of composition, by which
k-mer encoders tell species apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from tasks.compiled import compiled
from tasks.encoders.sequences import BASE_CODES, Sequences
from tasks.learning.pairs import Drawn, windows_of_two

ORDER = 2
"""Bases that the next one depends on: species differ in their trinucleotides."""
STATES = 4**ORDER
VARIATION = 0.8
"""Standard deviation of the logarithm of a base's odds, among species. With 1.2, or with 0.4 after three bases,
unseen species gained less (seed 1 of ``make bench-accuracy``, 500 bp paired)."""
MAX_BASES = 1_000
"""Of a made-up sequence: a step makes up to 256 of them, a quarter of a megabyte."""
BASES = np.frombuffer(b"ACGT", np.uint8)


@dataclass(frozen=True)
class SyntheticSpecies:
    """Two windows of one made-up species, each pair of a species of its own.

    A species is a Markov chain: that of the reads, every odds of which is multiplied by a random factor.

    :param log_odds: of the next base after :data:`ORDER` bases, in the reads; float64 (STATES, 4).
    :param lengths: of sequences, drawn from the reads; int64.
    """

    log_odds: np.ndarray
    lengths: np.ndarray
    names: tuple[str, ...] = ("made-up species",)

    @classmethod
    def like(cls, reads: Sequences) -> Self:
        """As long as the reads are, up to 1,000 bases, and of their composition in the mean."""
        counts = np.ones((STATES, 4))  # one of each beforehand, so that none is impossible
        _count_next_bases(reads.bases, reads.offsets, BASE_CODES, counts)
        return cls(np.log(counts), np.minimum(reads.lengths, MAX_BASES))

    def __len__(self) -> int:
        """Of species there is no end; so many reads say what they are like."""
        return len(self.lengths)

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        """See :class:`tasks.learning.pairs.PairSource`."""
        odds = np.exp(self.log_odds + VARIATION * random.standard_normal((count, STATES, 4)))
        up_to = np.cumsum(odds / odds.sum(axis=2, keepdims=True), axis=2)
        species = np.tile(np.arange(count), 2)
        offsets = np.zeros(2 * count + 1, np.int64)
        np.cumsum(random.choice(self.lengths, 2 * count), out=offsets[1:])
        bases = np.empty(offsets[-1], np.uint8)
        state = random.integers(0, STATES, 2 * count)
        _walk(up_to, species, state, random.random(len(bases)), offsets, BASES, bases)
        left = np.arange(count)
        return windows_of_two(Sequences(bases, offsets), left, left + count, random)


@compiled
def _count_next_bases(
    bases: np.ndarray, offsets: np.ndarray, base_codes: np.ndarray, counts: np.ndarray
) -> None:
    for row in range(len(offsets) - 1):
        state, run = 0, 0
        for i in range(offsets[row], offsets[row + 1]):
            code = base_codes[bases[i]]
            if code > 3:
                run = 0
                continue
            if run >= ORDER:
                counts[state, code] += 1
            state = (4 * state + code) % STATES
            run += 1


@compiled
def _walk(
    up_to: np.ndarray,
    species: np.ndarray,
    states: np.ndarray,
    uniform: np.ndarray,
    offsets: np.ndarray,
    letters: np.ndarray,
    bases: np.ndarray,
) -> None:
    for row in range(len(offsets) - 1):
        state, chances = states[row], up_to[species[row]]
        for i in range(offsets[row], offsets[row + 1]):
            code = 0
            while code < 3 and uniform[i] >= chances[state, code]:
                code += 1
            bases[i] = letters[code]
            state = (4 * state + code) % STATES
