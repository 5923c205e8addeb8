"""Steps that all ranks of an MPI job take together: where the input fails a step on any, one rank says why."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from mpi4py import MPI

Result = TypeVar("Result")


class Refused(Exception):
    """The input is at fault; rank 0 has said why, and every rank stops with this."""


def together(
    comm: MPI.Intracomm, step: Callable[[], Result], *, refusals: tuple[type[Exception], ...]
) -> Result:
    """Run a step without messages on every rank; collective, and so a barrier.

    :param refusals: errors of the input. Any other is not caught: the job has to end all ranks then.
    :raises Refused: on every rank, where the step raised one of them on any.
    """
    problem = ""
    try:
        result = step()
    except refusals as error:
        problem = str(error)
    problems = [problem for problem in comm.allgather(problem) if problem]
    if not problems:
        return result
    if comm.rank == 0:
        more = len(set(problems)) - 1
        others = f"\n({more} more ranks refuse their part)" if more else ""
        print(f"refused: {problems[0]}{others}", file=sys.stderr, flush=True)
    raise Refused
