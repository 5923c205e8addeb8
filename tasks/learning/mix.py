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
from tasks.learning.synthetic import SyntheticSpecies

CHAIN_SHARE = 0.75
CHAIN_SHARE_OF_MATES = 0.5
"""Of pairs on chains, for reads that are on one; the rest are the reads' own, of which mates reach as far as a
short chain. They were chosen by seed 1 of ``make bench-accuracy``."""
NEIGHBOUR_SHARE = 0.5
"""Of mutual neighbours, for reads that are on no chain: half and half was the best that was measured."""
SYNTHETIC_SHARE = 0.125
"""Of pairs of made-up species. P@10 in the batch and on unseen species, seed 1 of ``make bench-accuracy``:
at 500 bp paired .916 and .807 (a quarter: .904, .819; none: .920, .754), at 150 bp single .637 and .674 (a quarter:
.635, .690; none: .635, .647). With a quarter the sample batch's candidate was not better than its parent. The first
version, for the batch at hand, is trained without: .599 and .644 at 150 bp, with a quarter .581 and .699."""
REPLAY_SHARE = 0.5
"""Of pairs from earlier batches, where there are any; the rest is shared as if there were none.

``pytest -s tests/tasks/learning/test_replay.py`` tells what they are for: after a batch of six species, a training
on six others takes precision@10 on the first from 0.98 to 0.76 without such pairs, and leaves 0.98 with them.
"""


def batch_pairs(
    read_ids: pa.ChunkedArray, sequences: Sequences, edges: Edges, placements: Placements
) -> list[tuple[PairSource, float]]:
    """Where a batch's training pairs come from, the surest first, and in which shares; they sum to 1 at most.

    Of the share of the reads that is on chains, :data:`CHAIN_SHARE` (of mates, :data:`CHAIN_SHARE_OF_MATES`) are
    two reads far apart on one; of the others, :data:`NEIGHBOUR_SHARE` are mutual nearest neighbours. The rest are
    the reads' own, each kind in the share of the reads that it is the best for: windows of a single read, pieces of
    a long one, the mates of a template.

    :param read_ids, sequences: of the reads to train on; the rows of ``edges`` and ``placements`` are theirs.
    """
    both = mates(read_ids)
    paired = ReadPairs(sequences, *both, names=("mates",))
    cut = PlacedPairs.of(sequences, *pieces(read_ids), name="windows of one long read")
    with_partner = np.concatenate([paired.left, paired.right, cut.covered])
    alone = np.setdiff1d(np.arange(len(sequences)), with_partner)
    single = ReadWindows(sequences.take(alone))
    own = max(1, len(single) + len(cut) + 2 * len(paired))

    chained = PlacedPairs.of(
        sequences,
        placements.row,
        placements.chain,
        placements.offset,
        name="far apart on one chain",
        mates=both,
    )
    on_chains = len(chained) / max(1, len(sequences))
    neighbours = ReadPairs(
        sequences,
        *mutual_neighbours(edges.query, edges.neighbour, edges.cosine, templates=templates_of(read_ids)),
        names=("mutual nearest neighbours",),
    )
    with_mates = 2 * len(paired) / max(1, len(sequences))
    from_chains = on_chains * (CHAIN_SHARE_OF_MATES * with_mates + CHAIN_SHARE * (1 - with_mates))
    from_neighbours = NEIGHBOUR_SHARE * (1 - on_chains)
    of_their_own = (1 - from_chains - from_neighbours) / own
    return [
        (single, of_their_own * len(single)),
        (cut, of_their_own * len(cut)),
        (paired, of_their_own * 2 * len(paired)),
        (chained, from_chains),
        (neighbours, from_neighbours),
    ]


def with_synthetic(pairs: list[tuple[PairSource, float]], reads: Sequences) -> list[tuple[PairSource, float]]:
    """``pairs`` and, as an eighth of all, those of made-up species that are like the reads."""
    total = sum(share for source, share in pairs if len(source))
    return [
        *((source, (1 - SYNTHETIC_SHARE) * share) for source, share in pairs),
        (SyntheticSpecies.like(reads), SYNTHETIC_SHARE * total),
    ]


def with_replay(fresh: Mixture, replay: PairSource) -> Mixture:
    """``fresh`` and a share of pairs of earlier batches, where there are any."""
    if not len(replay):
        return fresh
    weights = [(1 - REPLAY_SHARE) * share for share in fresh.shares]
    return Mixture((*fresh.sources, replay), (*weights, REPLAY_SHARE))
