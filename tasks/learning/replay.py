"""Pairs of earlier batches, kept so that an encoder does not forget the species that a new batch lacks.

A reservoir goes with every encoder version, as one more of its files: it holds an equal number of pairs of each
batch that this version and its ancestors were trained on, so a rollback also brings the reservoir back. It holds
windows of reads: whoever may read the encoder may read them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.encoders.sequences import Sequences
from tasks.learning.pairs import Drawn, PairSource

FILE = "replay.parquet"
MAX_PAIRS = 20_000
MAX_BASES = 16_000_000
"""Of all windows together; about 4 MB compressed."""
SCHEMA = pa.schema(
    {"left": pa.large_string(), "right": pa.large_string(), "source": pa.string(), "batch_id": pa.string()}
)


@dataclass(frozen=True)
class Replay:
    """A reservoir, and a source of pairs.

    :param pairs: table of :data:`SCHEMA`: the two windows, what the pair was, and the batch it is from.
    """

    pairs: pa.Table
    names: tuple[str, ...] = ("pairs of earlier batches",)

    def __len__(self) -> int:
        return len(self.pairs)

    def draw(self, random: np.random.Generator, count: int) -> Drawn:
        """See :class:`tasks.learning.pairs.PairSource`: each window on a random strand."""
        rows = random.integers(0, len(self.pairs), count)
        sides = [Sequences.from_arrow(self.pairs[side]) for side in ("left", "right")]
        left, right = (
            side.windows(rows, 0 * rows, side.lengths[rows], random.random(count) < 0.5) for side in sides
        )
        return Drawn(left, right, np.zeros(count, np.int8))

    def batches(self) -> dict[str, int]:
        """Pairs kept of each batch."""
        return dict(sorted(Counter(self.pairs["batch_id"].to_pylist()).items()))

    def without(self, batch_ids: Collection[str]) -> Replay:
        """Those of other batches alone."""
        others = [batch_id not in batch_ids for batch_id in self.pairs["batch_id"].to_pylist()]
        return Replay(self.pairs.filter(pa.array(others, pa.bool_())))

    def with_batch(self, batch_id: str, source: PairSource, random: np.random.Generator) -> Replay:
        """The reservoir after training on ``source``, pairs of this batch: equal numbers of every batch.

        What there is of the same batch already is replaced.
        """
        others = [other for other in self.batches() if other != batch_id]
        share = MAX_PAIRS // (len(others) + 1)
        drawn = source.draw(random, share)
        bases = int(drawn.left.lengths.sum() + drawn.right.lengths.sum())
        share = min(share, int(share * MAX_BASES / (len(others) + 1) / max(1, bases)))
        # A draw holds its sources one after the other.
        chosen = np.sort(random.permutation(len(drawn.left))[:share])
        fresh = pa.table(
            {
                "left": drawn.left.take(chosen).to_arrow(),
                "right": drawn.right.take(chosen).to_arrow(),
                "source": pa.array([source.names[number] for number in drawn.source[chosen]], pa.string()),
                "batch_id": pa.array([batch_id] * len(chosen), pa.string()),
            },
            schema=SCHEMA,
        )
        kept = [self._some_of(other, share, random) for other in others]
        return Replay(pa.concat_tables([*kept, fresh]).combine_chunks())

    def _some_of(self, batch_id: str, count: int, random: np.random.Generator) -> pa.Table:
        rows = np.flatnonzero(np.asarray(self.pairs["batch_id"].to_pylist()) == batch_id)
        return self.pairs.take(pa.array(np.sort(random.permutation(rows)[:count])))

    def save(self, directory: Path) -> None:
        """Write :data:`FILE` into the directory of an encoder."""
        pq.write_table(self.pairs, directory / FILE, compression="zstd")


def read_replay(directory: Path) -> Replay:
    """The reservoir of the encoder in ``directory``; empty where it has none."""
    path = directory / FILE
    return Replay(pq.read_table(path, schema=SCHEMA) if path.exists() else SCHEMA.empty_table())
