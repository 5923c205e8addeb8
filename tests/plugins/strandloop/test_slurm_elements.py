"""Arrays, from recorded text: of Slurm 22.05.8, and in the shape of 25.11 (fields added, ranges of nodes)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strandloop.slurm_array import JobArray
from strandloop.slurm_elements import combine, described, resolve_elements
from strandloop.slurm_evidence import Answer, Evidence
from strandloop.slurm_state import JobState, Resolution

NAME = "c68145c3-3aba-4e10-971b-e4b6047cb1cf"
ARRAY = JobArray.parse("0-9%2")
DOWN = Answer(1, "slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
FORGOTTEN = Answer(1, "slurm_load_jobs error: Invalid job id specified")
RECORDED = Path(__file__).with_name("recorded")


def recorded(name: str) -> Answer:
    return Answer(0, (RECORDED / name).read_text())


def report(index: int, code: int = 0, *, told: str = "", restarts: int = 0, job_id: str = "32") -> str:
    value = {"job_id": job_id, "index": index, "exit_code": code, "signal": None, "told": told}
    times = {"started_at": f"2026-11-24T17:09:0{index}Z", "ended_at": f"2026-11-24T17:10:0{index}Z"}
    return json.dumps({**value, **times, "hosts": "n1", "nodes": 1, "restart_count": restarts}) + "\n"


def states(*, job_id: str = "32", array: JobArray = ARRAY, **evidence: object) -> dict[int, str]:
    began = "".join(f"{job_id} {index} 0\n{job_id} {index} 1\n" for index in array.indices)
    found = resolve_elements(Evidence(job_id, NAME, **{"began": began, **evidence}), array)  # type: ignore[arg-type]
    return {index: str(element.state) for index, element in found.items()}


EXPECTED = {0: "SUCCEEDED", 1: "FAILED", 2: "SUCCEEDED", 3: "RUNNING"} | dict.fromkeys(
    range(4, 10), "PENDING"
)


@pytest.mark.parametrize(("version", "job_id"), [("22.05", "32"), ("25.11", "812")])
def test_every_element_has_its_state(version: str, job_id: str) -> None:
    assert states(job_id=job_id, scontrol=recorded(f"array-{version}.scontrol")) == EXPECTED


def test_an_element_whose_script_never_began_has_not_succeeded() -> None:
    found = states(scontrol=recorded("array-22.05.scontrol"), began="32 0 0\n")
    assert (found[0], found[2]) == ("SUCCEEDED", "UNKNOWN")


def test_squeue_shows_what_lives_and_never_success() -> None:
    found = states(scontrol=DOWN, squeue=recorded("array-22.05.squeue"))
    assert found == {**EXPECTED, 0: "UNKNOWN", 2: "UNKNOWN"}


def test_elements_that_were_cancelled_before_they_started_are_listed_without_an_index() -> None:
    cancelled = recorded("array-cancelled-by-name-22.05.scontrol")
    assert set(states(job_id="37", scontrol=cancelled).values()) == {"CANCELLED"}
    # One that had ended before, and was forgotten, did not become a cancelled one.
    exits = report(5, job_id="37") + report(6, 3, job_id="37")
    found = states(job_id="37", scontrol=cancelled, exit_file=exits)
    assert (found[5], found[6], found[7]) == ("SUCCEEDED", "FAILED", "CANCELLED")


def test_exit_files_speak_for_the_elements_that_slurm_has_forgotten() -> None:
    exits = "".join(report(index, 4 if index in (3, 7) else 0) for index in range(10) if index != 8)
    found = states(scontrol=FORGOTTEN, exit_file=exits)
    assert {index: state for index, state in found.items() if state != "SUCCEEDED"} == {
        3: "FAILED", 7: "FAILED", 8: "UNKNOWN",
    }  # fmt: skip


def test_an_element_that_an_array_is_listed_without_is_unknown_and_its_exit_file_final() -> None:
    """Slurm forgets elements one by one, and drops without a trace those cancelled while waiting."""
    listed = "\n".join(recorded("array-22.05.scontrol").text.splitlines()[1:])
    exits = report(4, 143, told="TERM") + report(5, 0, told="TERM")
    found = states(scontrol=Answer(0, listed), exit_file=exits)
    assert [found[index] for index in (3, 4, 5, 6)] == ["RUNNING", "FAILED", "FAILED", "UNKNOWN"]
    garbage = states(scontrol=Answer(0, "JobId=\x01 ???"), exit_file=exits)
    assert [garbage[index] for index in (3, 4, 5, 6)] == ["UNKNOWN"] * 4


def test_another_array_with_the_same_number_is_not_ours() -> None:
    other = recorded("array-22.05.scontrol").text.replace(NAME, "another")
    assert set(states(scontrol=Answer(0, other)).values()) == {"UNKNOWN"}


def test_verdicts_speak_for_elements_and_the_last_one_for_the_rest() -> None:
    lost = Resolution(JobState.NODE_FAILED, "scontrol says NODE_FAIL").to_verdict("32", index=3)
    limit = Resolution(JobState.TIMEOUT, "it was running for 60 s").to_verdict("32")
    found = states(scontrol=FORGOTTEN, verdict=lost + '{"job_id": "3\n' + limit, exit_file=report(0))
    assert found == {**dict.fromkeys(range(10), "TIMEOUT"), 0: "SUCCEEDED", 3: "NODE_FAILED"}


def test_accounting_lists_elements_by_array_and_index() -> None:
    told = {"scontrol": FORGOTTEN, "squeue": FORGOTTEN}
    found = states(job_id="1", sacct=recorded("array-22.05.sacct"), **told)
    # Element 2 was put back, and has a row for each of its runs.
    assert found == {**dict.fromkeys(range(10), "SUCCEEDED"), 1: "FAILED"}
    found = states(job_id="11", sacct=recorded("array-cancelled-22.05.sacct"), **told)
    assert set(found.values()) == {"CANCELLED"}


S, F, R, P, U = (
    Resolution(JobState.SUCCEEDED, "its script ended with 0", started_at="b", ended_at="d", node_count=1),
    Resolution(
        JobState.FAILED, "its script ended with 4", exit_code=4, nodes="n1", started_at="a", ended_at="c"
    ),
    Resolution(JobState.RUNNING, "scontrol says RUNNING", started_at="b"),
    Resolution(JobState.PENDING, "scontrol says PENDING"),
    Resolution(JobState.UNKNOWN, "exit file: none"),
)


@pytest.mark.parametrize(
    ("parts", "state"),
    [
        ([S, S], "SUCCEEDED"),
        ([S, F], "FAILED"),
        ([S, F, R], "RUNNING"),
        ([F, P], "RUNNING"),
        ([P, P], "PENDING"),
        ([U, R], "RUNNING"),
        ([U, S], "UNKNOWN"),
        ([U, F], "UNKNOWN"),
        ([F, Resolution(JobState.CANCELLED, "x")], "FAILED"),
        ([S, Resolution(JobState.CANCELLED, "x")], "CANCELLED"),
        ([S, Resolution(JobState.REQUEUED, "x")], "RUNNING"),
    ],
)
def test_an_array_stands_as_its_elements_do(parts: list[Resolution], state: str) -> None:
    assert combine(dict(enumerate(parts))).state == state


def test_a_failed_array_names_its_elements() -> None:
    failed = combine({0: S, 7: F, 13: F, 14: Resolution(JobState.CANCELLED, "scontrol says CANCELLED")})
    assert failed.reason == (
        "3 of 4 elements did not succeed: 7,13 FAILED: its script ended with 4, exit code 4, on n1; "
        "14 CANCELLED: scontrol says CANCELLED"
    )
    assert failed.unfinished == (7, 13, 14)
    assert (failed.started_at, failed.ended_at, failed.exit_code) == ("a", "d", None)
    assert combine({0: S, 7: F}).exit_code == 4


def test_many_different_endings_are_cut_short() -> None:
    elements = {index: Resolution(JobState.FAILED, f"reason {index}") for index in range(100)}
    assert described(elements).endswith("9 FAILED: reason 9; and 90 more elements")


def test_an_array_is_stuck_only_if_all_that_lives_of_it_is() -> None:
    stuck = Resolution(JobState.PENDING, "x", stuck="no node of the partition can satisfy what it asks for")
    assert combine({0: stuck, 1: S}).stuck and not combine({0: stuck, 1: R}).stuck
