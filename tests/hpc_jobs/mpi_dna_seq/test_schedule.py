"""The plan of a run, without MPI: nothing is left out, nothing is done twice, nobody writes to another's rows."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from hpc_jobs.mpi_dna_seq.schedule import Meeting, Schedule, Span

LAYOUTS = [
    ((1,),),
    ((2,),),
    ((3,),),
    ((8,),),
    ((1, 1),),
    ((2, 1),),
    ((1, 1, 1),),
    ((2, 2, 1),),
    ((1, 3, 2, 2),),
    ((1,) * 5,),
    ((1,) * 8,),
    ((1, 1), (1, 1)),
    ((2, 1, 1), (1, 3, 2)),
    ((1, 2, 1, 1), (1, 1, 2, 1)),
    ((1,) * 4, (1,) * 4, (1,) * 4),
    ((1,) * 7, (2,) * 7),
]


def rows_written(meeting: Meeting) -> set[int]:
    return {*range(*meeting.rows), *range(*meeting.columns)}


@pytest.mark.parametrize("ranks", LAYOUTS, ids=str)
@pytest.mark.parametrize(("rows", "pieces"), [(0, 2), (1, 2), (5, 4), (37, 2), (53, 6)])
def test_every_pair_is_met_once_and_no_row_is_in_two_hands(
    rows: int, pieces: int, ranks: tuple[tuple[int, ...], ...]
) -> None:
    schedule = Schedule(rows, ranks, pieces)
    met = np.zeros((rows, rows), int)
    for layer, position in itertools.product(range(schedule.layers), range(schedule.members)):
        block = schedule.blocks[position]
        for unit in schedule.units(layer):
            by_rank = [
                list(schedule.rounds(layer, position, rank, unit)) for rank in range(ranks[layer][position])
            ]
            for round_ in zip(*by_rank, strict=True):  # all ranks come to the same barriers
                in_hand: set[int] = set()
                for meetings in round_:
                    written = set().union(*map(rows_written, meetings))
                    assert not in_hand & written
                    in_hand |= written
                    for meeting in meetings:
                        assert set(range(*meeting.rows)) <= set(range(*block))
                        met[slice(*meeting.rows), slice(*meeting.columns)] += 1
    off_diagonal = ~np.eye(rows, dtype=bool)
    within = met + met.T
    # a meeting of a span with itself marks both orders of its pairs, another one order of them
    diagonal = met.diagonal()
    assert (diagonal == 1).all()
    both_orders = (met == 1) & (met.T == 1)
    assert ((within == 1) | both_orders)[off_diagonal].all()


@pytest.mark.parametrize("members", [2, 3, 4, 5, 8, 12])
def test_the_work_of_every_member_is_the_same_in_every_step(members: int) -> None:
    """The half ring of an even number of members too: in its last step each pair of members meets twice."""
    schedule = Schedule(members * 96, ((1,) * members,), 8)
    for number in range(len(schedule.units(0))):
        unit = schedule.units(0)[number]
        pairs = {
            sum(
                meeting.rows.rows * meeting.columns.rows
                for meetings in schedule.rounds(0, position, 0, unit)
                for meeting in meetings
            )
            for position in range(members)
        }
        assert len(pairs) == 1, unit


def test_layers_share_the_steps_of_one_ring() -> None:
    schedule = Schedule(100, ((1,) * 6,) * 3, 2)
    assert [[unit.step for unit in schedule.units(layer)] for layer in range(3)] == [
        [0, 3, 0, 3],
        [1, None, 1, None],
        [2, None, 2, None],
    ]


def test_rows_are_shared_out_by_ranks() -> None:
    schedule = Schedule(100, ((3, 1),), 2)
    assert schedule.blocks == (Span(0, 75), Span(75, 100))
    assert [schedule.strip(0, 0, rank) for rank in range(3)] == [Span(0, 25), Span(25, 50), Span(50, 75)]
    assert schedule.chunks(0, 0, 1) == (Span(12, 25), Span(37, 50), Span(62, 75))


@pytest.mark.parametrize(
    ("rows", "ranks", "pieces"),
    [
        (0, ((1, 1),), 2),
        (50_000, ((1, 1),), 32),  # two pieces of 32 in memory
        (50_000, ((2,),), 8),  # nothing travels
        (1_000, ((1, 1),), 2),  # no chunks of less than 256 rows
        (100_000, ((64,),), 6),
        (10_000_000, ((2,),), 23_284),  # 2^31 pairs of each rank in a unit
    ],
)
def test_pieces_are_small_enough_for_memory_and_time_and_large_enough_for_speed(
    rows: int, ranks: tuple[tuple[int, ...], ...], pieces: int
) -> None:
    assert Schedule.of(rows, ranks).pieces == pieces


def test_parts_lie_end_to_end() -> None:
    rng = random.Random(1)
    for _ in range(50):
        span = Span(first := rng.randrange(100), first + rng.randrange(100))
        of = rng.randrange(1, 12)
        parts = [span.part(number, of) for number in range(of)]
        assert [row for part in parts for row in range(*part)] == list(range(*span))
