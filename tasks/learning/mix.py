"""The mix of pairs that a batch is learnt from, by how far each source can be trusted and how far it reaches."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from tasks.encoders.sequences import Sequences
from tasks.learning.batch_results import Edges, Placements
from tasks.learning.pairs import (
    Mixture,
    PairSource,
    PlacedPairs,
    ReadPairs,
    ReadWindows,
    mates,
    mutual_neighbours,
    pieces,
    templates_of,
)

OWN_SHARE = 0.5
"""Of pairs that no graph is needed for: half and half was the best that was measured."""
REPLAY_SHARE = 0.5
"""Of pairs from earlier batches, where there are any; the rest is shared as if there were none.

After a batch of 16 species, a short training on one of 16 others took precision@10 on the first from 0.92 to 0.58
without such pairs, to 0.85 with a share of 0.25, and to 0.89 with 0.5 (simulated genomes); after 6 and 6 species
from 0.98 to 0.76 without, and to 0.98 with them.
"""


def batch_pairs(
    read_ids: pa.ChunkedArray, sequences: Sequences, edges: Edges, placements: Placements
) -> list[tuple[PairSource, float]]:
    """Where a batch's training pairs come from, the surest first, and in which shares; they sum to 1 at most.

    Half (:data:`OWN_SHARE`) are the reads' own, each kind in the share of the reads that it is the best for:
    windows of a single read, pieces of a long one, the mates of a template. The other half is from the graph:
    reads far apart on one chain, in the share of the reads that are on one, and mutual nearest neighbours for the
    rest.

    :param read_ids, sequences: of the reads to train on; the rows of ``edges`` and ``placements`` are theirs.
    """
    paired = ReadPairs(sequences, *mates(read_ids), names=("mates",))
    cut = PlacedPairs.of(sequences, *pieces(read_ids), name="windows of one long read")
    with_partner = np.concatenate([paired.left, paired.right, cut.covered])
    alone = np.setdiff1d(np.arange(len(sequences)), with_partner)
    single = ReadWindows(sequences.take(alone))
    own = max(1, len(single) + len(cut) + 2 * len(paired))

    chained = PlacedPairs.of(
        sequences, placements.row, placements.chain, placements.offset, name="far apart on one chain"
    )
    on_chains = len(chained) / max(1, len(sequences))
    neighbours = ReadPairs(
        sequences,
        *mutual_neighbours(edges.query, edges.neighbour, edges.cosine, templates=templates_of(read_ids)),
        names=("mutual nearest neighbours",),
    )
    return [
        (single, OWN_SHARE * len(single) / own),
        (cut, OWN_SHARE * len(cut) / own),
        (paired, OWN_SHARE * 2 * len(paired) / own),
        (chained, (1 - OWN_SHARE) * on_chains),
        (neighbours, (1 - OWN_SHARE) * (1 - on_chains)),
    ]


def with_replay(fresh: Mixture, replay: PairSource) -> Mixture:
    """``fresh`` and a share of pairs of earlier batches, where there are any."""
    if not len(replay):
        return fresh
    weights = [(1 - REPLAY_SHARE) * share for share in fresh.shares]
    return Mixture((*fresh.sources, replay), (*weights, REPLAY_SHARE))
