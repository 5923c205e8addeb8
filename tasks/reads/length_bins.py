"""How reads are counted by length: one by one up to 1,000 bases, then in 16 bins for each doubling."""

from __future__ import annotations

import numpy as np

LONGEST_EXACT = 1000
BINS_PER_DOUBLING = 16
DOUBLINGS = 20

SHORTEST_OF_BIN = np.concatenate(
    [
        np.arange(LONGEST_EXACT + 1),
        np.ceil(
            LONGEST_EXACT * 2 ** (np.arange(1, BINS_PER_DOUBLING * DOUBLINGS + 1) / BINS_PER_DOUBLING)
        ).astype(np.int64),
    ]
)
"""int64 (1321,): the shortest length of each bin, in bases. That of 1,000 reaches to 1,044; the last has no end."""
