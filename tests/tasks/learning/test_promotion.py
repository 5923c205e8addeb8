import numpy as np
import pytest

from tasks.learning.evaluation import Retrieval
from tasks.learning.promotion import decide


def ranks(*counts: tuple[int, int]) -> Retrieval:
    """Templates whose two sequences have the same rank: (rank, how many)."""
    return Retrieval(np.concatenate([np.full((many, 2), rank) for rank, many in counts]))


@pytest.mark.parametrize(
    ("parent", "candidate", "better", "k"),
    [
        (ranks((50, 100)), ranks((5, 30), (50, 70)), True, 10),
        (ranks((50, 100)), ranks((50, 100)), False, 10),
        (ranks((50, 100)), ranks((5, 2), (50, 98)), False, 10),
        (ranks((5, 30), (50, 70)), ranks((50, 100)), False, 10),
        (ranks((5, 100)), ranks((0, 60), (5, 40)), True, 1),
        (ranks((50, 10)), ranks((0, 10)), False, 10),
    ],
    ids=["better", "equal", "within chance", "worse", "saturated at ten", "too few"],
)
def test_only_what_is_measurably_better_passes(
    parent: Retrieval, candidate: Retrieval, better: bool, k: int
) -> None:
    decision = decide(parent, candidate)
    assert (decision.better, decision.k) == (better, k)


def test_the_reason_has_the_numbers() -> None:
    reason = decide(ranks((50, 100)), ranks((5, 30), (50, 70))).reason
    assert "is better: recall@10 of 100 held-out templates 0.0000 before, 0.3000 after" in reason
    assert "+0.3000 (95 % interval +0.2" in reason


def test_nothing_held_out_is_said_so() -> None:
    nothing = Retrieval(np.zeros((0, 2), dtype=np.int64))
    assert "0 held-out templates are too few" in decide(nothing, nothing).reason
