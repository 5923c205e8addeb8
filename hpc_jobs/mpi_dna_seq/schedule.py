"""Who compares what, and when: pure arithmetic, the same on every rank. Every pair of rows is met exactly once.

The rows of the store are cut three times:

=======  ============================================================================================
block    consecutive rows of one *member* of the ring: a node, all ranks of which share its memory
strip    consecutive rows of a block, home of one rank of the member
chunk    consecutive rows of a strip; the chunks number c of all strips are *piece* c of the block
=======  ============================================================================================

The work is cut into *units*: pass c = 0, 1, …, and in it step s = 0, 1, …, floor(M / 2) of a ring of M members.
In step s the piece c of member m - s visits member m, which compares it with its block::

              step 0                      step 1                      step 2          (M = 4, pass c)
    member 0: own piece c, later rows     piece c of 3 x all rows     piece c of 2 x one half
    member 1: own piece c, later rows     piece c of 0 x all rows     piece c of 3 x one half
    …

Scores are symmetric, so a visit serves the visitor's rows and the resident's: floor(M / 2) steps are enough. For
even M two members meet on both of their sides in the last step. Then the lower one takes those pairs whose
rows lie in the same half of their blocks, the higher one the others: half of the work for both, in every pass.

With c-fold replication (1.5D: Driscoll et al., IPDPS 2013) there are c rings, *layers*, each with all rows;
layer l takes the steps l, l + c, l + 2c, … of each pass, so a visitor moves c places at once.

Inside a member the R ranks share a unit in *rounds*, with a barrier after each, so that no two ranks ever write
to the lists of the same row. A visit is a Latin square: in round t, rank i compares its strip with the part of
the piece that comes from strip i + t. The pairs within a piece are a round-robin tournament of its 2R half
chunks, R games a round (Kirkman's circle method).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

PIECES = 32
"""Pieces of a block, two of which are in memory beside it: 6 % more; no slower than 16."""
PIECES_AT_HOME = 8
"""Where there is one member and nothing travels: fewer barriers; a rank makes a form of a piece at a time."""
SMALLEST_CHUNK = 256
"""Rows: below, the matrix product of a strip and a chunk loses more than it gains by less memory."""
LARGEST_UNIT = 2**31
"""Pairs of one rank in a unit: 11 s at D = 256 and 100 GFLOP/s."""


class Span(NamedTuple):
    """Rows ``first`` to ``stop`` (exclusive) of the store."""

    first: int
    stop: int

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return self.stop - self.first

    def part(self, number: int, of: int) -> Span:
        """Part ``number`` of ``of`` equal ones, as equal as rows allow."""
        return Span(self.first + number * self.rows // of, self.first + (number + 1) * self.rows // of)


class Meeting(NamedTuple):
    """All pairs of a row of ``rows`` and one of ``columns``; of two different rows, where both are the same."""

    rows: Span
    columns: Span


class Unit(NamedTuple):
    """One pass and step; ``step`` is None where this layer has nothing left to do in the pass."""

    piece: int
    step: int | None


@dataclass(frozen=True)
class Schedule:
    """The plan of a whole run.

    :param rows: of the store.
    :param ranks: ``ranks[layer][position]``: ranks of each member; every layer has the same number of members.
    :param pieces: passes; an even number.
    """

    rows: int
    ranks: tuple[tuple[int, ...], ...]
    pieces: int

    @classmethod
    def of(cls, rows: int, ranks: tuple[tuple[int, ...], ...]) -> Schedule:
        """As many pieces as memory wants (two of them stand beside a block) or as bound the time of a unit.

        But, for the speed of a product, no smaller chunks than :data:`SMALLEST_CHUNK` rows where time allows.
        """
        whole = cls(rows, ranks, 2)
        strip = max(span.rows for layer in range(whole.layers) for span in whole.first_strips(layer))
        block = max(span.rows for span in whole.blocks)
        for_memory = min(PIECES if whole.steps else PIECES_AT_HOME, strip // SMALLEST_CHUNK)
        for_time = _parts(strip * block, LARGEST_UNIT)
        return cls(rows, ranks, 2 * max(_parts(max(for_memory, for_time), 2), 1))

    @property
    def layers(self) -> int:
        """Rings that hold all rows each."""
        return len(self.ranks)

    @property
    def members(self) -> int:
        """Members of one ring."""
        return len(self.ranks[0])

    @property
    def steps(self) -> int:
        """Last step of a pass."""
        return self.members // 2

    @cached_property
    def blocks(self) -> tuple[Span, ...]:
        """Rows of the member at each position, in proportion to its ranks."""
        weights = [sum(column) for column in zip(*self.ranks, strict=True)]
        before, total, blocks = 0, sum(weights), []
        for weight in weights:
            first, stop = before * self.rows // total, (before + weight) * self.rows // total
            blocks.append(Span(first, stop))
            before += weight
        return tuple(blocks)

    @cached_property
    def largest_piece(self) -> int:
        """Rows that no piece of any member exceeds; 0 where none travels."""
        if self.steps == 0:
            return 0
        return max(
            ranks * _parts(_parts(block.rows, ranks), self.pieces)
            for layer in self.ranks
            for block, ranks in zip(self.blocks, layer, strict=True)
        )

    def strip(self, layer: int, position: int, rank: int) -> Span:
        """Home rows of one rank of a member."""
        return self.blocks[position].part(rank, self.ranks[layer][position])

    def first_strips(self, layer: int) -> list[Span]:
        """Of each member of a layer the first rank's strip; no other is longer by more than a row."""
        return [self.strip(layer, position, 0) for position in range(self.members)]

    def chunks(self, layer: int, position: int, piece: int) -> tuple[Span, ...]:
        """The rows of a piece: one chunk of the strip of each rank."""
        ranks = range(self.ranks[layer][position])
        return tuple(self.strip(layer, position, rank).part(piece, self.pieces) for rank in ranks)

    def units(self, layer: int) -> tuple[Unit, ...]:
        """What a layer does, in order; the same number of units for every layer."""
        slots = range(_parts(self.steps + 1, self.layers))
        steps = [slot * self.layers + layer for slot in slots]
        return tuple(
            Unit(piece, step if step <= self.steps else None)
            for piece in range(self.pieces)
            for step in steps
        )

    def rounds(self, layer: int, position: int, rank: int, unit: Unit) -> Iterator[Sequence[Meeting]]:
        """What one rank of a member does in a unit: the meetings of each round, and a barrier after each."""
        if unit.step is None:
            return
        strip = self.strip(layer, position, rank)
        owner = (position - unit.step) % self.members
        visitors = self.chunks(layer, owner, unit.piece)
        mine = Span(*strip)
        if unit.step == 0:
            yield from _tournament(visitors, rank)
            mine = Span(strip.part(unit.piece, self.pieces).stop, strip.stop)
        elif 2 * unit.step == self.members:
            half = (2 * unit.piece >= self.pieces) ^ (position > owner)
            mine = strip.part(half * self.pieces // 2, self.pieces)
            mine = Span(mine.first, strip.part((half + 1) * self.pieces // 2 - 1, self.pieces).stop)
        ranks = max(self.ranks[layer][position], len(visitors))
        for turn in range(ranks):
            other = (rank + turn) % ranks
            yield [Meeting(mine, visitors[other])] if other < len(visitors) else []


def _tournament(chunks: Sequence[Span], rank: int) -> Iterator[Sequence[Meeting]]:
    """All pairs within a piece: the meetings of one rank, in rounds in which no row is in two ranks' hands."""
    if len(chunks) == 1:
        yield [Meeting(chunks[0], chunks[0])]
        return
    halves = [chunk.part(half, 2) for chunk in chunks for half in (0, 1)]
    yield [Meeting(half, half) for half in halves[2 * rank : 2 * rank + 2]]
    last = len(halves) - 1
    for turn in range(last):
        # The last player stays where it is, the others move on in a circle; pairs face each other.
        one = halves[(turn + rank) % last]
        other = halves[last] if rank == 0 else halves[(turn - rank) % last]
        yield [Meeting(one, other)]


def _parts(total: int, size: int) -> int:
    """How many parts of at most ``size`` make up ``total``."""
    return -(-total // size)
