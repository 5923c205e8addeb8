"""The gate: a candidate replaces its parent where it is measurably better on held-out reads, and nowhere worse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tasks.learning.evaluation import Interval, Retrieval, SpeciesPrecision, bootstrap_difference

MIN_TEMPLATES = 20
SATURATED = 0.95
MAX_SPECIES_LOSS = 0.02
"""Of a species' precision@10. A fall refuses where its whole 95 % interval lies beyond this.

Measured once, by hand: on 40 panels of 200 reads (150 bp, seven bacteria) the difference of the same two encoders
had a standard deviation of 0.01 to 0.02 by species: half as much again as one panel's bootstrap says, because its
reads share neighbours. On 17 % of the panels some species of an encoder that is better by 0.017 fell by more than
0.02, on none with its whole interval. What truly lost 0.05 to 0.06 was refused on 70 % of them, what lost 0.1 on
all.
"""

Verdict = Literal["passed", "refused", "too few"]


@dataclass(frozen=True)
class Check:
    """One comparison of a candidate with its parent.

    :param of: what was compared, for example ``held-out templates``; there are ``count`` of them.
    :param measure: recall@k or precision@k; ``before`` is the parent's mean, ``after`` the candidate's.
    :param verdict: ``too few`` where ``count`` is below MIN_TEMPLATES, whatever the numbers say.
    """

    of: str
    count: int
    measure: str
    before: float
    after: float
    difference: Interval
    verdict: Verdict


@dataclass(frozen=True)
class Decision:
    """Whether the candidate takes its parent's place, the sentence that says why, and all that was compared."""

    better: bool
    reason: str
    checks: list[Check]

    @property
    def k(self) -> int:
        """Of the held-out templates' recall@k."""
        return int(self.checks[0].measure.partition("@")[2])

    @property
    def difference(self) -> Interval:
        """Of the held-out templates' recall@k."""
        return self.checks[0].difference


def decide(
    parent: Retrieval,
    candidate: Retrieval,
    *,
    chains: tuple[Retrieval, Retrieval] | None = None,
    panels: Mapping[str, tuple[SpeciesPrecision, SpeciesPrecision]] | None = None,
) -> Decision:
    """Compare two encoders on the same templates, chains and panels.

    On held-out templates the candidate has to be better: the 95 % interval of the difference in recall@10 lies
    above zero. Where the parent already reaches 0.95 there, ten neighbours cannot tell the two apart, and
    recall@1 decides. With fewer than 20 templates it never is better.

    Elsewhere it must not be worse: on chains and on every panel as a whole the interval must not lie below zero,
    on a panel's species not below minus :data:`MAX_SPECIES_LOSS`. Fewer than 20 pairs or reads are not counted.

    :param chains: retrieval, before and after, of held-out pairs of reads far apart on one chain.
    :param panels: precision, before and after, on every panel by its name.
    """
    checks = [_held_out(parent, candidate)]
    if chains is not None:
        checks.append(_retrieved("pairs of reads on one chain", *chains))
    for name, (before, after) in (panels or {}).items():
        checks += _panel(name, before, after)
    return Decision(all(check.verdict != "refused" for check in checks), _reason(checks), checks)


def _held_out(before: Retrieval, after: Retrieval) -> Check:
    """Refused unless the candidate is better: too few templates prove nothing."""
    check = _retrieved("held-out templates", before, after)
    return replace(check, verdict="passed" if check.difference.low > 0 else "refused")


def _retrieved(of: str, before: Retrieval, after: Retrieval) -> Check:
    """Refused where the partner is found less often, by the measure that the parent is not saturated in."""
    k = 10 if not len(before.ranks) or before.recall(10) < SATURATED else 1
    return _compared(of, f"recall@{k}", before.hits(k), after.hits(k))


def _panel(name: str, before: SpeciesPrecision, after: SpeciesPrecision) -> list[Check]:
    """The panel as a whole, then its species."""
    measure = f"precision@{before.k}"
    checks = [_compared(f"reads of panel {name}", measure, before.shares, after.shares)]
    for species in before.by_species():
        of = f"reads of {species} in panel {name}"
        shares = before.of(species), after.of(species)
        checks.append(_compared(of, measure, *shares, allowed_loss=MAX_SPECIES_LOSS))
    return checks


def _compared(
    of: str, measure: str, before: np.ndarray, after: np.ndarray, *, allowed_loss: float = 0.0
) -> Check:
    """Refused where the whole interval says that more than ``allowed_loss`` is lost."""
    count = len(before)
    if count < MIN_TEMPLATES:
        return Check(of, count, measure, 0.0, 0.0, Interval(0.0, 0.0, 0.0), "too few")
    difference = bootstrap_difference(before, after)
    verdict: Verdict = "refused" if difference.high < -allowed_loss else "passed"
    return Check(of, count, measure, float(before.mean()), float(after.mean()), difference, verdict)


def _reason(checks: list[Check]) -> str:
    """One sentence: how much better the candidate is, or the first check that refused it; then what else counts."""
    held_out, *others = checks
    refused = [check for check in checks if check.verdict == "refused"]
    if held_out.count < MIN_TEMPLATES:
        told = [
            f"{held_out.count} {held_out.of} are too few to compare two encoders; {MIN_TEMPLATES} are needed"
        ]
    elif not refused:
        told = [f"the candidate is better: {_told(held_out)}"]
        if passed := sum(check.verdict == "passed" for check in others):
            told.append(f"not worse in {passed} other comparison(s)")
    elif refused[0] is held_out:
        told = [f"the candidate is not measurably better: {_told(held_out)}"]
    else:
        told = [f"the candidate is worse: {_told(refused[0])}"]
        if more := len(refused) - 1:
            told.append(f"{more} other comparison(s) refuse it too")
    told += [
        f"{check.count} {check.of} are too few to count" for check in others if check.verdict == "too few"
    ]
    return "; ".join(told)


def _told(check: Check) -> str:
    difference = check.difference
    return (
        f"{check.measure} of {check.count} {check.of} {check.before:.4f} before, {check.after:.4f} after, "
        f"difference {difference.mean:+.4f} (95 % interval {difference.low:+.4f} to {difference.high:+.4f})"
    )
