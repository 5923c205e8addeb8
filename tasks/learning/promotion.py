"""The gate: a candidate replaces its parent only where it is measurably better on held-out reads."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.learning.evaluation import Interval, Retrieval, bootstrap_difference

MIN_TEMPLATES = 20
SATURATED = 0.95


@dataclass(frozen=True)
class Decision:
    """Whether the candidate is better, in which measure, by how much, and the sentence that says so."""

    better: bool
    k: int
    difference: Interval
    reason: str


def decide(parent: Retrieval, candidate: Retrieval) -> Decision:
    """Compare two encoders on the same templates.

    The measure is recall@10: how often the other sequence of a template is among the ten nearest. Where the
    parent already reaches 0.95 there, ten neighbours cannot tell the two apart, and recall@1 decides. The
    candidate is better if the 95 % interval of the difference lies above zero; with fewer than 20 templates
    it never is.
    """
    templates = len(parent.ranks)
    k = 10 if templates == 0 or parent.recall(10) < SATURATED else 1
    if templates < MIN_TEMPLATES:
        return Decision(
            False,
            k,
            Interval(0.0, 0.0, 0.0),
            f"{templates} held-out templates are too few to compare two encoders; {MIN_TEMPLATES} are needed",
        )
    difference = bootstrap_difference(parent.hits(k), candidate.hits(k))
    better = difference.low > 0
    verdict = "better" if better else "not measurably better"
    return Decision(
        better,
        k,
        difference,
        f"the candidate is {verdict}: recall@{k} of {templates} held-out templates "
        f"{parent.recall(k):.4f} before, {candidate.recall(k):.4f} after, difference {difference.mean:+.4f} "
        f"(95 % interval {difference.low:+.4f} to {difference.high:+.4f})",
    )
