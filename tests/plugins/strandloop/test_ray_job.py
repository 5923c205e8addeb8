import json
from dataclasses import replace

import pytest

from strandloop.errors import JobFailed, JobLost, JobTimeout, RemoteJobError, StateUnknown
from strandloop.ray_bookmark import Bookmark
from strandloop.ray_job import Attempts, Outcome, RayJob, identity_and_attempt, submission_id_of

IDENTITY = "5b680f73-b6b6-55c2-9f27-d912b89a7031"
# Answer of Ray 2.60, shortened.
FAILED = {
    "type": "SUBMISSION",
    "submission_id": f"{IDENTITY}-2",
    "status": "FAILED",
    "message": "Job entrypoint command failed with exit code 3, last available logs (truncated to 20,000 "
    "chars):\nRunning entrypoint\nno reads\n",
    "error_type": "JOB_ENTRYPOINT_COMMAND_ERROR",
    "start_time": 1795255921648,
    "end_time": 1795255925566,
    "driver_exit_code": 3,
}


def job(status: str) -> RayJob:
    return RayJob(f"{IDENTITY}-1", status=status, submitted_ms=1795255921648, ended_ms=1795255925566)


@pytest.mark.parametrize(
    ("status", "alive", "succeeded"),
    [
        ("PENDING", True, False),
        ("RUNNING", True, False),
        ("SUCCEEDED", False, True),
        ("FAILED", False, False),
        ("STOPPED", False, False),
    ],
)
def test_each_status_of_ray_means_one_thing(status: str, alive: bool, succeeded: bool) -> None:
    assert (job(status).alive, job(status).succeeded) == (alive, succeeded)


@pytest.mark.parametrize(
    "answer",
    [{}, {**FAILED, "status": "FINISHED"}, {**FAILED, "status": None}, {**FAILED, "submission_id": None}],
)
def test_an_answer_that_is_no_description_of_a_job_is_no_evidence(answer: dict) -> None:
    with pytest.raises(ValueError, match="not the description of a Ray job"):
        RayJob.from_answer(answer)


def test_success_becomes_the_job_record() -> None:
    outcome = Outcome("ended", f"{IDENTITY}-1", job=job("SUCCEEDED"), nodes=3)
    assert outcome.record().to_xcom() == {
        "system": "ray",
        "id": f"{IDENTITY}-1",
        "name": IDENTITY,
        "state": "SUCCEEDED",
        "submitted_at": "2026-11-21T10:12:01Z",
        "started_at": "2026-11-21T10:12:01Z",
        "ended_at": "2026-11-21T10:12:05Z",
        "nodes": 3,
        "attempt": 1,
    }


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "FAILED", "STOPPED"])
def test_no_other_status_is_ever_green(status: str) -> None:
    with pytest.raises(JobFailed, match=status):
        Outcome("ended", f"{IDENTITY}-1", job=job(status)).record()


@pytest.mark.parametrize(
    ("end", "error"), [("deadline", JobTimeout), ("lost", JobLost), ("unknown", StateUnknown)]
)
def test_no_other_end_is_ever_green(end: str, error: type[RemoteJobError]) -> None:
    for known in (None, job("RUNNING"), job("SUCCEEDED")):
        outcome = Outcome(end, f"{IDENTITY}-1", job=known, said="asked and not answered")
        with pytest.raises(RemoteJobError, match="asked and not answered"):
            outcome.record()
    with pytest.raises(error):
        Outcome(end, f"{IDENTITY}-1", job=job("STOPPED")).record()


def test_a_failure_says_why_with_the_exit_code_and_the_last_lines() -> None:
    failed = RayJob.from_answer(FAILED)
    outcome = Outcome(
        "ended", failed.submission_id, job=failed, last_lines=("Running entrypoint", "no reads")
    )
    with pytest.raises(JobFailed) as raised:
        outcome.record()
    assert str(raised.value) == (
        f"Ray job {IDENTITY}-2: FAILED: JOB_ENTRYPOINT_COMMAND_ERROR: Job entrypoint command failed with "
        "exit code 3; exit code 3\nlast lines of its log:\n  | Running entrypoint\n  | no reads"
    )


@pytest.mark.parametrize("known", [None, RayJob.from_answer(FAILED)])
def test_an_outcome_survives_its_journey_through_an_event(known: RayJob | None) -> None:
    outcome = Outcome("lost", f"{IDENTITY}-2", job=known, said="gone", nodes=1, last_lines=("a", "b"))
    outcome = replace(outcome, bookmark=Bookmark(f"{IDENTITY}-2", 1, 5, 2.5))
    assert Outcome.from_event(json.loads(json.dumps(outcome.to_event()))) == outcome


def test_a_submission_id_is_identity_and_attempt() -> None:
    assert identity_and_attempt(submission_id_of(IDENTITY, attempt=12)) == (IDENTITY, 12)
    assert identity_and_attempt("raysubmit_ZpVsJu-7") == ("raysubmit_ZpVsJu-7", 1)


# What HEAD of 2026-11-24 sent: a task that was deferred by it may be resumed by this version.
OLD_EVENT = {
    "end": "ended",
    "submission_id": f"{IDENTITY}-1",
    "job": {
        "submission_id": f"{IDENTITY}-1",
        "status": "SUCCEEDED",
        "submitted_ms": 1795255921648,
        "ended_ms": 1795255925566,
        "message": "",
        "error_type": "",
        "exit_code": 0,
    },
    "said": "",
    "nodes": 3,
    "last_lines": ["a", "b"],
}


def test_events_of_other_versions_are_understood() -> None:
    old = Outcome.from_event(OLD_EVENT)
    assert old.record().to_xcom()["state"] == "SUCCEEDED"
    assert (old.nodes, old.last_lines, old.bookmark) == (3, ("a", "b"), None)
    later = Outcome.from_event({**OLD_EVENT, "more": 1, "job": {**OLD_EVENT["job"], "more": 1}})  # type: ignore[dict-item]
    assert later == old


def test_a_job_has_started_when_it_was_seen_to() -> None:
    def started(since: float | None) -> str | None:
        return job("SUCCEEDED").record(running_since=since).started_at

    assert started(None) == "2026-11-21T10:12:01Z"
    assert started(1795255923.0) == "2026-11-21T10:12:03Z"
    assert started(1795255999.0) == "2026-11-21T10:12:05Z"  # seen by another clock than that of its end
    assert started(1.0) == "2026-11-21T10:12:01Z"


def test_a_long_reason_keeps_its_end_where_pip_says_what_was_wrong() -> None:
    message = "runtime_env setup failed: " + "x" * 50_000 + "ERROR: No matching distribution found for nosuch"
    failed = RayJob("job-1", "FAILED", submitted_ms=1, message=message)
    with pytest.raises(JobFailed) as raised:
        Outcome("ended", "job-1", job=failed).record()
    assert "runtime_env setup failed: xxx" in str(raised.value)
    assert str(raised.value).endswith("ERROR: No matching distribution found for nosuch")
    assert len(str(raised.value)) < 5_000


def attempts(*states: str | None) -> Attempts:
    return Attempts(
        tuple(state and RayJob(f"id-{n}", state, submitted_ms=1) for n, state in enumerate(states, start=1))
    )


@pytest.mark.parametrize(
    ("states", "submitted", "alive", "result", "next_number"),
    [
        ((), 0, [], None, 1),
        ((), 1, [], None, 2),  # taken once, and the head forgot it: lost
        (("RUNNING",), 1, ["id-1"], None, 2),
        (("PENDING",), 0, ["id-1"], None, 2),
        (("SUCCEEDED",), 0, [], "id-1", 2),
        (("FAILED",), 1, [], None, 2),
        (("STOPPED",), 1, [], None, 2),
        (("FAILED", "RUNNING"), 1, ["id-2"], None, 3),
        (("FAILED", "STOPPED", "SUCCEEDED"), 3, [], "id-3", 4),
        ((None, "RUNNING"), 1, ["id-2"], None, 3),
        (("SUCCEEDED", "RUNNING"), 0, ["id-2"], "id-1", 3),
        ((None, None), 0, [], None, 1),  # nothing says that these numbers were ever used
    ],
)
def test_the_attempts_that_count(
    states: tuple[str | None, ...], submitted: int, alive: list[str], result: str | None, next_number: int
) -> None:
    found = attempts(*states)
    assert [job.submission_id for job in found.alive] == alive
    assert (found.result.submission_id if found.result else None) == result
    assert found.next_number(submitted=submitted) == next_number
