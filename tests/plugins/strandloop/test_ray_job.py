import json

import pytest

from strandloop.errors import JobFailed, JobLost, JobTimeout, RemoteJobError, StateUnknown
from strandloop.ray_job import LogTail, Outcome, RayJob, identity_and_attempt, submission_id_of

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
    assert Outcome.from_event(json.loads(json.dumps(outcome.to_event()))) == outcome


def test_a_submission_id_is_identity_and_attempt() -> None:
    assert identity_and_attempt(submission_id_of(IDENTITY, attempt=12)) == (IDENTITY, 12)
    assert identity_and_attempt("raysubmit_ZpVsJu-7") == ("raysubmit_ZpVsJu-7", 1)


def test_a_log_is_shown_once_and_by_complete_lines() -> None:
    tail = LogTail()
    assert tail.feed("one\ntw") == ["one"]
    assert tail.feed("one\ntw") == []
    assert tail.feed("one\ntwo\n\nthree") == ["two", ""]
    assert tail.feed("one\ntwo\n\nthree", final=True) == ["three"]
    assert tail.feed("one\ntwo\n\nthree", final=True) == []
    assert tail.last_lines == ("one", "two", "", "three")


def test_a_log_that_became_shorter_is_another_log() -> None:
    tail = LogTail()
    tail.feed("one\ntwo\n")
    assert tail.feed("new\n") == ["new"]


def test_the_last_lines_are_the_last_thirty() -> None:
    tail = LogTail()
    tail.feed("".join(f"{n}\n" for n in range(100)), final=True)
    assert tail.last_lines == tuple(str(n) for n in range(70, 100))


def test_progress_bars_long_lines_and_binary_bytes_do_no_harm() -> None:
    shown = LogTail().feed("10%\r50%\r100%\r\n" + "x" * 9_000 + "\na\x00b\x1b[31mred\tend\n")
    assert shown[0] == "100%"
    assert shown[1] == "x" * 4_000 + " … (9000 characters)"
    assert shown[2] == "a\N{REPLACEMENT CHARACTER}b\x1b[31mred\tend"
