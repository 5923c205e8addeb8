"""Which reads are kept out of training, and how they become questions to an encoder."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.encoders.sequences import Sequences
from tasks.learning.pairs import mates, templates_of

HELD_OUT_PERCENT = 10
MAX_TEMPLATES = 4_000  # the interval of recall@10 is then about a percentage point wide


@dataclass(frozen=True)
class Split:
    """Reads divided by template, so that no mate of a held-out read is trained on.

    The division depends on the template's name alone: whoever trains on a batch keeps the same reads out.

    :param training: rows of the reads to train on.
    :param left, right: the two sequences of each held-out template: its mates, or the halves of its read.
    """

    training: np.ndarray
    left: Sequences
    right: Sequences

    @property
    def templates(self) -> int:
        """How many templates are held out and asked for."""
        return len(self.left)


def split_reads(reads: pa.Table) -> Split:
    """Hold out a tenth of the templates of ``reads`` (columns ``read_id`` and ``sequence``).

    At most 4,000 of them become questions; a held-out read of one base cannot be halved and is none.
    """
    sequences = Sequences.from_arrow(reads["sequence"])
    templates = templates_of(reads["read_id"]).dictionary_encode()
    names = templates.dictionary.to_pylist()
    chosen = np.array([zlib.crc32(name.encode()) % 100 < HELD_OUT_PERCENT for name in names], dtype=bool)
    held_out = chosen[templates.indices.to_numpy(zero_copy_only=False)]
    rows = np.flatnonzero(held_out)
    first, second = (rows[mate] for mate in mates(reads["read_id"].take(pa.array(rows))))
    single = np.setdiff1d(rows, np.concatenate([first, second]))
    single = single[sequences.lengths[single] >= 2]
    first, second, single = _thin(first, second, single)
    halves = sequences.lengths[single] // 2
    forward = np.zeros(len(single), dtype=bool)
    left = sequences.windows(single, 0 * halves, halves, forward)
    right = sequences.windows(single, halves, sequences.lengths[single] - halves, forward)
    return Split(
        training=np.flatnonzero(~held_out),
        left=Sequences.concatenate([sequences.take(first), left]),
        right=Sequences.concatenate([sequences.take(second), right]),
    )


def _thin(
    first: np.ndarray, second: np.ndarray, single: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every n-th of the pairs and of the single reads, n such that at most MAX_TEMPLATES remain."""
    step = -(-(len(first) + len(single)) // MAX_TEMPLATES) or 1
    return first[::step], second[::step], single[::step]
