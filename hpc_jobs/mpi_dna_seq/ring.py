"""The half ring: pieces of blocks travel from member to member and are compared with what lives there.

:mod:`hpc_jobs.mpi_dna_seq.schedule` says who meets whom; here it is carried out. One unit in time, of a member with
two ranks (0 leads: it alone sends and receives)::

    rank 0   wait for visitor | start: visitor u to the right,  | pass  | round 0   | round 1   |
             u's vectors      | vectors of u + 1 from the left  | lists | own strip | own strip |
    rank 1                    |                                 |       | x part 0  | x part 1  |   …
                              barrier                         barrier   barrier     barrier

The vectors of the next visitor are on their way while this one is compared. Its lists (12 k bytes a row, against
4 D) travel with it, as accumulators: they can only follow after the comparison. After its last step they
return to their owner, who merges them into the lists at home.

In memory, of each member and once for all of its ranks: the block, its lists, and two pieces with theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, cached_property

import numpy as np
from mpi4py import MPI

from hpc_jobs.mpi_dna_seq.members import Member
from hpc_jobs.mpi_dna_seq.schedule import Meeting, Schedule, Span, Unit
from hpc_jobs.mpi_dna_seq.tiles import Best, Block, Comparison

ELEMENTS = {np.dtype(np.float32): MPI.FLOAT, np.dtype(np.int64): MPI.INT64_T}
Read = Callable[[Span, np.ndarray], None]
"""Fill an array, float32 (rows, dim), with rows of the store, ready to be compared."""


class HalfRing:
    """All rows compared all against all; one instance per rank and run, made by all ranks at once.

    :param dim: components of a vector.
    :param k: length of the lists, at least 1.
    :raises RingError: where a node's shared memory is too small.
    """

    def __init__(self, member: Member, schedule: Schedule, *, dim: int, k: int) -> None:
        self._member = member
        self._schedule = schedule
        self._block = schedule.blocks[member.position]
        self._travelling: list[MPI.Request] = []
        self.communication_seconds = 0.0
        rows, piece = self._block.rows, schedule.largest_piece
        arrays = member.shared(
            ((rows, dim), np.float32),
            *2 * [((piece, dim), np.float32)],
            *_shape_of_best(rows, k),
            *2 * _shape_of_best(piece, k),
        )
        self._vectors, self._visitor, self._next_visitor = arrays[:3]
        self._best, self._lists, self._spare_lists = (Best(*arrays[at : at + 3]) for at in (3, 6, 9))
        self.strip = schedule.strip(member.layer, member.position, member.rank)
        self.home = self._resident(self.strip)
        """The rows of this rank; whoever runs the ring fills its vectors before."""
        _clear(self.home.best, -np.inf)

    def compare(
        self, comparison: Comparison, read: Read, *, done: int = 0, go_on: Callable[[int], bool]
    ) -> bool:
        """Fill the lists of all blocks; of several layers, those of layer 0. By all ranks at once.

        :param read: for a visitor that did not come by the ring, but is there at the start.
        :param done: units that an earlier run has done; :meth:`state` of that number has been restored.
        :param go_on: asked after each unit but the last, with the number of units that are done; all ranks give
            the same answer.
        :return: False where ``go_on`` has ended it.
        """
        units = self._schedule.units(self._member.layer)
        for number in range(done, len(units)):
            unit = units[number]
            if unit.step and number == done:
                self._read_visitor(unit, read)
            elif unit.step:
                self._receive_visitor()
            if number + 1 < len(units):
                self._send_ahead(unit, units[number + 1])
            if unit.step:
                self._pass_lists(unit)
            self._meet(unit, comparison)
            if unit.step and unit.step == self._journey[-1]:
                self._bring_home(unit)
            if number + 1 < len(units) and not go_on(number + 1):
                self._wait()
                return False
        self._merge_layers()
        return True

    def advance(self) -> None:
        """Let the messages under way move on: MPI libraries move large ones only inside of MPI calls."""
        MPI.Request.Testall(self._travelling)

    def state(self, number: int) -> list[np.ndarray]:
        """What a run needs to go on after ``number`` units: arrays to save, or to be filled again.

        The same in all ranks of a member. Vectors are not among them, the store has them.
        """
        units = self._schedule.units(self._member.layer)
        arrays = [self._best.scores, self._best.ids, self._best.thresholds]
        if number and units[number].step in self._journey[1:]:
            rows = sum(chunk.rows for chunk in self._visiting(units[number - 1]))
            arrays += _rows_of(self._lists, rows)
        return arrays

    @cached_property
    def _journey(self) -> tuple[int, ...]:
        """The steps of this layer in each pass, but not step 0."""
        layers = self._schedule.layers
        first = self._member.layer or layers
        return tuple(range(first, self._schedule.steps + 1, layers))

    def _visiting(self, unit: Unit) -> tuple[Span, ...]:
        """The rows of the piece that visits this member in a unit."""
        assert unit.step is not None
        owner = (self._member.position - unit.step) % self._schedule.members
        return self._schedule.chunks(self._member.layer, owner, unit.piece)

    def _resident(self, span: Span) -> Block:
        """Rows of this member's block."""
        first, stop = span.first - self._block.first, span.stop - self._block.first
        return Block(span.first, self._vectors[first:stop], _part(self._best, first, stop))

    def _read_visitor(self, unit: Unit, read: Read) -> None:
        """Have the first visitor of this run here, each rank reads a share; its lists are passed on as ever."""
        start = 0
        for chunk in self._visiting(unit):
            share = chunk.part(self._member.rank, self._member.ranks_here)
            first = start + share.first - chunk.first
            read(share, self._visitor[first : first + share.rows])
            start += chunk.rows
        self._member.barrier()

    def _receive_visitor(self) -> None:
        """Wait for the vectors that were sent ahead."""
        self._wait()
        self._visitor, self._next_visitor = self._next_visitor, self._visitor
        self._member.barrier()

    def _send_ahead(self, unit: Unit, following: Unit) -> None:
        """Start to send vectors to where the following unit needs them, and to receive those that it needs here."""
        if not (following.step and self._member.leads):
            return
        position, members = self._member.position, self._schedule.members
        if following.step == self._journey[0]:  # leaves its home
            hop = following.step
            chunks = self._schedule.chunks(self._member.layer, position, following.piece)
            leaving = _message_of_chunks(self._vectors, chunks, self._block)
        else:
            assert unit.step is not None
            hop = following.step - unit.step
            leaving = _message(self._visitor, sum(chunk.rows for chunk in self._visiting(unit)))
        arriving = _message(self._next_visitor, sum(chunk.rows for chunk in self._visiting(following)))
        ring = self._member.ring
        self._travelling = [
            ring.Irecv(arriving, source=(position - hop) % members),
            ring.Isend(leaving, dest=(position + hop) % members),
        ]

    def _pass_lists(self, unit: Unit) -> None:
        """Let the visitor's lists follow it; from home come empty ones, with the thresholds of there."""
        assert unit.step is not None
        hop = unit.step
        came_from = Unit(unit.piece, 0)
        if unit.step == self._journey[0]:
            self._fresh_lists(unit.piece)
        else:
            came_from = Unit(unit.piece, self._journey[self._journey.index(unit.step) - 1])
            hop -= came_from.step or 0
        self._exchange_lists(self._visiting(came_from), self._visiting(unit), hop)

    def _fresh_lists(self, piece: int) -> None:
        """Lists for a piece that leaves home; each rank makes those of its own chunk."""
        mine = self.strip.part(piece, self._schedule.pieces)
        at = self._place_in_piece(piece)
        first = mine.first - self._block.first
        thresholds = self._best.thresholds[first : first + mine.rows]
        _clear(_part(self._lists, at, at + mine.rows), thresholds)
        self._member.barrier()

    def _bring_home(self, unit: Unit) -> None:
        """Let the visitor's lists return to their owner, and merge those that return to here."""
        assert unit.step is not None
        own = Unit(unit.piece, 0)
        self._exchange_lists(self._visiting(unit), self._visiting(own), -unit.step)
        mine = self.strip.part(unit.piece, self._schedule.pieces)
        at = self._place_in_piece(unit.piece)
        returned = _part(self._lists, at, at + mine.rows)
        self._resident(mine).best.merge(returned)
        self._member.barrier()

    def _place_in_piece(self, piece: int) -> int:
        """Where this rank's chunk stands among those of a piece."""
        chunks = self._schedule.chunks(self._member.layer, self._member.position, piece)
        return sum(chunk.rows for chunk in chunks[: self._member.rank])

    def _exchange_lists(self, leaving: tuple[Span, ...], arriving: tuple[Span, ...], hop: int) -> None:
        """Send the lists of ``leaving`` so many places to the right; then those of ``arriving`` are here."""
        if self._member.leads:
            began = time.perf_counter()
            position, members = self._member.position, self._schedule.members
            to, source = (position + hop) % members, (position - hop) % members
            outgoing = _rows_of(self._lists, sum(chunk.rows for chunk in leaving))
            incoming = _rows_of(self._spare_lists, sum(chunk.rows for chunk in arriving))
            for tag, (sent, received) in enumerate(zip(outgoing, incoming, strict=True), start=1):
                self._member.ring.Sendrecv(_message(sent), to, tag, _message(received), source, tag)
            self.communication_seconds += time.perf_counter() - began
        self._lists, self._spare_lists = self._spare_lists, self._lists
        self._member.barrier()

    def _meet(self, unit: Unit, comparison: Comparison) -> None:
        """Compare, in rounds, this rank's share of the unit."""
        member = self._member
        for meetings in self._schedule.rounds(member.layer, member.position, member.rank, unit):
            for meeting in meetings:
                self._compare(meeting, unit, comparison)
            member.barrier()

    def _compare(self, meeting: Meeting, unit: Unit, comparison: Comparison) -> None:
        rows, columns = meeting
        if rows == columns:
            comparison.within(self._resident(rows))
            return
        others = self._guest(columns, unit) if unit.step else self._resident(columns)
        if self.strip.first <= rows.first and rows.stop <= self.strip.stop:
            start, stop = rows.first - self.strip.first, rows.stop - self.strip.first
            comparison.across(self.home, others, start=start, stop=stop)
        else:
            comparison.across(self._resident(rows), others)

    def _guest(self, span: Span, unit: Unit) -> Block:
        """One chunk of the visiting piece."""
        chunks = self._visiting(unit)
        first = sum(chunk.rows for chunk in chunks[: chunks.index(span)])
        stop = first + span.rows
        return Block(span.first, self._visitor[first:stop], _part(self._lists, first, stop))

    def _merge_layers(self) -> None:
        """Bring what the layers have found to layer 0, piece by piece, where each rank merges a share."""
        member = self._member
        if self._schedule.layers == 1:
            return
        for layer in range(1, self._schedule.layers):
            for start in range(0, self._block.rows, step := max(self._schedule.largest_piece, 1)):
                rows = Span(start, min(start + step, self._block.rows))
                if member.leads and member.layer == layer:
                    for sent in _rows_of(_part(self._best, *rows), rows.rows):
                        member.across_layers.Send(_message(sent), dest=0)
                if member.layer == 0:
                    if member.leads:
                        for received in _rows_of(self._lists, rows.rows):
                            member.across_layers.Recv(_message(received), source=layer)
                    member.barrier()
                    share = rows.part(member.rank, member.ranks_here)
                    others = _part(self._lists, share.first - start, share.stop - start)
                    _part(self._best, *share).merge(others)
                    member.barrier()

    def _wait(self) -> None:
        began = time.perf_counter()
        MPI.Request.Waitall(self._travelling)
        self._travelling = []
        self.communication_seconds += time.perf_counter() - began


def _shape_of_best(rows: int, k: int) -> list[tuple[tuple[int, ...], type]]:
    return [((rows, k), np.float32), ((rows, k), np.int64), ((rows,), np.float32)]


def _clear(best: Best, thresholds: np.ndarray | float) -> None:
    """No neighbours yet."""
    best.scores.fill(-np.inf)
    best.ids.fill(-1)
    best.thresholds[:] = thresholds


def _part(best: Best, first: int, stop: int) -> Best:
    return Best(best.scores[first:stop], best.ids[first:stop], best.thresholds[first:stop])


def _rows_of(best: Best, rows: int) -> list[np.ndarray]:
    """The arrays of the first rows."""
    return [best.scores[:rows], best.ids[:rows], best.thresholds[:rows]]


def _message(array: np.ndarray, rows: int | None = None) -> tuple[np.ndarray, int, MPI.Datatype]:
    """An array as so many rows: a count of elements would overflow MPI's 32 bits beyond 8 GiB."""
    return array, len(array) if rows is None else rows, _row_type(array.dtype, _width(array))


def _message_of_chunks(
    vectors: np.ndarray, chunks: tuple[Span, ...], block: Span
) -> tuple[np.ndarray, int, MPI.Datatype]:
    """Several runs of rows of a block as one message; they arrive end to end."""
    lengths, places = [chunk.rows for chunk in chunks], [chunk.first - block.first for chunk in chunks]
    return vectors, 1, _row_type(vectors.dtype, _width(vectors)).Create_indexed(lengths, places).Commit()


def _width(array: np.ndarray) -> int:
    return array.shape[1] if array.ndim == 2 else 1


@cache
def _row_type(dtype: np.dtype, width: int) -> MPI.Datatype:
    return ELEMENTS[dtype].Create_contiguous(width).Commit()
