"""How a job array stands, concluded from how each of its elements stands. All pure.

One poll brings the evidence about all elements. It is taken apart, each element is resolved as a job of its
own (:func:`strandloop.slurm_state.resolve`), and the array follows from its elements.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from strandloop.slurm_array import JobArray, ranges
from strandloop.slurm_evidence import Answer, Evidence
from strandloop.slurm_state import JobState, Resolution, resolve

#: Groups of elements that a message names one by one.
MOST_GROUPS = 10

#: Slurm's "no index": what is left of the elements that were cancelled before they started.
_REST = "4294967294"

# A controller that knows the array and lists it without an element has forgotten that element.
_NOT_LISTED = Answer(1, "Invalid job id specified: the array is known, this element is not listed")


def resolve_elements(evidence: Evidence, array: JobArray) -> dict[int, Resolution]:
    """Resolve every element that the array must have; one of which nobody knows is UNKNOWN.

    :param evidence: about the whole array: ``exit_file`` and ``verdict`` hold a JSON line for each element
        that has one; a verdict without an index is about all elements that left no exit file.
    """
    reports, verdicts = _lines(evidence.exit_file), _lines(evidence.verdict)
    scontrol, rest = _by_index(evidence.scontrol, _scontrol_index)
    squeue, _ = _by_index(evidence.squeue, _squeue_index)
    sacct, _ = _by_index(evidence.sacct, _sacct_index)
    began: dict[str, str] = {}
    for line in evidence.began.splitlines():
        for place in line.split()[1:2]:
            began[place] = f"{began.get(place, '')}{line}\n"
    found = {}
    for index in array.indices:
        report = reports.get(index)
        verdict = verdicts.get(index) or (verdicts.get(None) if report is None else None)
        said = scontrol.get(index) or (rest if report is None and verdict is None else "")
        listed = said or not (scontrol or rest)
        element = replace(
            evidence,
            index=index,
            exit_file=report,
            verdict=verdict,
            began=began.get(str(index), ""),
            scontrol=_cut(evidence.scontrol, said) if listed else _NOT_LISTED,
            squeue=_cut(evidence.squeue, squeue.get(index, "")),
            sacct=_cut(evidence.sacct, sacct.get(index, "")),
        )
        found[index] = resolve(element)
    return found


def combine(elements: Mapping[int, Resolution]) -> Resolution:
    """Conclude how the array stands.

    It is alive while an element is. Then it succeeded only if every element was seen to succeed, and failed
    only if the end of every element is known. Its times span those of its elements, its ``node_count`` is
    that of its largest element.
    """
    parts = list(elements.values())
    alive = [part for part in parts if part.state.alive]
    bad = {i: part for i, part in elements.items() if part.state is not JobState.SUCCEEDED}
    unknown = {i: part for i, part in bad.items() if part.state is JobState.UNKNOWN}
    exit_codes = {part.exit_code for part in bad.values()}
    if alive:
        begun = any(part.state is not JobState.PENDING for part in parts)
        state, reason = (JobState.RUNNING if begun else JobState.PENDING), counted(elements)
    elif unknown:
        state, reason = JobState.UNKNOWN, f"{counted(elements)}. {described(unknown)}"
    elif bad:
        states = {part.state for part in bad.values()}
        state = states.pop() if len(states) == 1 else JobState.FAILED
        reason = f"{len(bad)} of {len(parts)} elements did not succeed: {described(bad)}"
    else:
        state, reason = JobState.SUCCEEDED, f"all of its {len(parts)} elements succeeded"
    return Resolution(
        state,
        reason,
        exit_code=exit_codes.pop() if state.failed and len(exit_codes) == 1 else None,
        node_count=max((part.node_count for part in parts), default=0),
        started_at=min((part.started_at for part in parts if part.started_at), default=None),
        ended_at=max((part.ended_at for part in parts if part.ended_at), default=None) if not alive else None,
        restarts=sum(part.restarts for part in parts),
        stuck=alive[0].stuck if alive and all(part.stuck for part in alive) else "",
        unfinished=tuple(bad),
    )


def counted(elements: Mapping[int, Resolution]) -> str:
    """Count elements by state: ``14 SUCCEEDED, 4 RUNNING, 2 PENDING``."""
    counts = Counter(element.state for element in elements.values())
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())


def described(elements: Mapping[int, Resolution]) -> str:
    """Name elements with state, reason, exit code and nodes; those that are alike together."""
    groups: dict[str, list[int]] = {}
    for index, element in elements.items():
        code = "" if element.exit_code is None else f", exit code {element.exit_code}"
        nodes = f", on {element.nodes}" if element.nodes else ""
        groups.setdefault(f"{element.state}: {element.reason}{code}{nodes}", []).append(index)
    named = [f"{ranges(indices)} {words}" for words, indices in list(groups.items())[:MOST_GROUPS]]
    left_out = sum(len(indices) for indices in list(groups.values())[MOST_GROUPS:])
    return "; ".join(named) + (f"; and {left_out} more elements" if left_out else "")


def _lines(text: str | None) -> dict[int | None, str]:
    """Find the JSON line of each element, the last one if there are several; what is damaged is left out."""
    found: dict[int | None, str] = {}
    for line in (text or "").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("index"), int | None):
            found[value.get("index")] = line
    return found


def _by_index(answer: Answer | None, index_of: Callable[[str], str]) -> tuple[dict[int, str], str]:
    """Give each element the lines that speak of it; also return those that speak of all others."""
    found: dict[int, str] = {}
    rest = ""
    for line in answer.text.splitlines() if answer is not None and answer.rc == 0 else ():
        expression = index_of(line)
        if expression == _REST:
            rest += line + "\n"
        for index in _indices(expression):
            found[index] = found.get(index, "") + line + "\n"
    return found, rest


def _indices(expression: str) -> Iterator[int]:
    try:
        yield from JobArray.parse(expression).indices
    except ValueError:
        return  # garbage, or the index that stands for the rest: speaks of no element


def _scontrol_index(line: str) -> str:
    match = re.search(r"^JobId=\d+ (?:\S+ )?ArrayTaskId=(\S+)", line)
    return match[1] if match else ""


def _squeue_index(line: str) -> str:
    return "".join(line.split("|")[1:2])


def _sacct_index(line: str) -> str:
    return line.partition("|")[0].partition("_")[2].strip("[]")


def _cut(answer: Answer | None, text: str) -> Answer | None:
    """Return what an answer says of one element; an answer that is none is passed on as it is."""
    return replace(answer, text=text) if answer is not None and answer.rc == 0 else answer
