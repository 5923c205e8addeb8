"""Dialogues with a head that is played, by a clock that only pauses move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from strandloop.code_archive import CodeArchive
from strandloop.errors import StateUnknown, SubmitRefused
from strandloop.ray_dialogue import (
    Answer,
    Ask,
    Dialogue,
    Pause,
    Say,
    find,
    look_up,
    stop,
    submit,
    upload,
    watch,
)

INVALID = """Traceback (most recent call last):
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
TypeError: metadata values must be strings, got <class 'int'>
."""
NO_AGENT = "No available agent to submit job, please try again later."
SILENCE = Answer(None, "ConnectError: [Errno 111] Connection refused")
BROKEN = Answer(500, "Traceback (most recent call last): ...")


def play(
    head: Any,
    dialogue: Dialogue[Any],
    *,
    said: list[str] | None = None,
    instead: Callable[[Ask], Answer] | None = None,
) -> Any:
    """Play a dialogue with the head, or with what stands in front of it, by the head's clock."""
    answer = None
    while True:
        try:
            step = dialogue.send(answer)
        except StopIteration as end:
            return end.value
        answer = None
        match step:
            case Ask():
                answer = (instead or head)(step)
                head.clock += 0.01
            case Pause(seconds):
                head.clock += seconds
            case Say(lines) if said is not None:
                said.extend(lines)


def test_a_job_is_found_or_proven_absent(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    assert play(head, find("job-1", patience=10)).status == "RUNNING"
    assert play(head, find("job-2", patience=10)) is None
    assert head.asked[-1] == "GET /api/version"


@pytest.mark.parametrize(
    "trouble",
    [
        SILENCE,
        BROKEN,
        Answer(404, "<html>no such page at this proxy</html>"),
        Answer(200, "<html>please log in</html>"),
        Answer(200, "[]"),
        Answer(200, '{"status": "FINISHED", "submission_id": "job-1", "start_time": 1}'),
        Answer(401, "Unauthorized: Missing authentication token"),
    ],
)
def test_only_rays_own_answer_is_evidence(head: Any, trouble: Answer) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    head.trouble = iter([trouble, trouble])
    assert play(head, find("job-1", patience=60)).status == "RUNNING"

    head.trouble = iter(lambda: trouble, None)
    started = head.clock
    with pytest.raises(StateUnknown) as raised:
        play(head, find("job-1", patience=60))
    assert 60 <= head.clock - started < 61
    assert "/api/jobs/job-1 within 60 s" in str(raised.value)
    assert trouble.text[:40] in str(raised.value)


def test_a_job_is_not_absent_while_the_version_is_silent(head: Any) -> None:
    absent = Answer(404, "Job job-1 does not exist")
    head.trouble = iter([absent, *[SILENCE] * 1_000])
    with pytest.raises(StateUnknown, match="/api/version"):
        play(head, find("job-1", patience=60))


@pytest.mark.parametrize(
    ("jobs", "submitted", "attempt", "status"),
    [
        ({}, 0, 1, None),
        ({"id-1": ["RUNNING"]}, 1, 1, "RUNNING"),
        ({"id-1": ["PENDING"]}, 0, 1, "PENDING"),
        ({"id-1": ["SUCCEEDED"]}, 0, 1, "SUCCEEDED"),
        ({"id-1": ["FAILED"]}, 1, 2, None),
        ({"id-1": ["STOPPED"]}, 1, 2, None),
        ({"id-1": ["FAILED"], "id-2": ["RUNNING"]}, 1, 2, "RUNNING"),
        ({"id-1": ["FAILED"], "id-2": ["STOPPED"], "id-3": ["SUCCEEDED"]}, 3, 3, "SUCCEEDED"),
        ({}, 1, 2, None),  # taken once, and the head forgot it: lost
        ({"id-2": ["RUNNING"]}, 1, 2, "RUNNING"),
    ],
)
def test_the_attempt_that_counts(
    head: Any, jobs: dict[str, list[str]], submitted: int, attempt: int, status: str | None
) -> None:
    head.jobs = jobs
    number, job = play(head, look_up("id", submitted=submitted, patience=10))
    assert (number, job.status if job else None) == (attempt, status)


def test_while_ray_is_silent_nothing_is_looked_up_and_nothing_submitted(head: Any) -> None:
    head.trouble = iter(lambda: SILENCE, None)
    with pytest.raises(StateUnknown):
        play(head, look_up("id", submitted=0, patience=10))


def test_a_job_is_submitted_once_however_often_the_answer_is_lost(head: Any) -> None:
    assert play(head, submit({"submission_id": "job-1"}, patience=10)).status == "PENDING"

    def lose_the_answer(ask: Ask) -> Answer:
        answer = head(ask)
        return Answer(None, "ReadTimeout: ") if ask.method == "POST" else answer

    job = play(head, submit({"submission_id": "job-2"}, patience=10), instead=lose_the_answer)
    assert job.submission_id == "job-2"
    assert head.asked.count("POST /api/jobs/") == 2


def test_a_duplicate_is_attached_to(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    assert play(head, submit({"submission_id": "job-1"}, patience=10)).status == "RUNNING"


def test_a_head_whose_agent_is_not_up_yet_is_asked_again(head: Any) -> None:
    head.trouble = iter([Answer(500, NO_AGENT)])
    assert play(head, submit({"submission_id": "job-1"}, patience=10)).status == "PENDING"
    assert head.asked.count("POST /api/jobs/") == 2


@pytest.mark.parametrize("refusal", [Answer(500, INVALID), Answer(400, INVALID), Answer(403, "Forbidden")])
def test_a_refusal_is_not_repeated_and_says_why(head: Any, refusal: Answer) -> None:
    head.trouble = iter([refusal])
    with pytest.raises(SubmitRefused, match=r"metadata values must be strings|Forbidden"):
        play(head, submit({"submission_id": "job-1"}, patience=10))
    assert head.asked == ["POST /api/jobs/"]


def test_a_submission_that_is_never_taken_is_given_up(head: Any) -> None:
    def no_agent(ask: Ask) -> Answer:
        return Answer(500, NO_AGENT) if ask.method == "POST" else head(ask)

    with pytest.raises(SubmitRefused, match="No available agent"):
        play(head, submit({"submission_id": "job-1"}, patience=60), instead=no_agent)


def test_code_is_sent_once(head: Any) -> None:
    archive = CodeArchive(b"zip")
    assert play(head, upload(archive, patience=10)) is True
    assert play(head, upload(archive, patience=10)) is False
    assert [line.split()[0] for line in head.asked] == ["GET", "PUT", "GET"]


def test_a_job_is_watched_to_its_end_with_its_log(head: Any) -> None:
    head.jobs = {"job-1": ["PENDING", "RUNNING", "SUCCEEDED"]}
    head.log = "one\ntwo"
    said: list[str] = []
    outcome = play(head, watch("job-1", poll=5, patience=60), said=said)
    assert (outcome.end, outcome.job.status, outcome.nodes) == ("ended", "SUCCEEDED", 2)
    assert said == ["one", "two"]
    assert outcome.last_lines == ("one", "two")


@pytest.mark.parametrize("trouble", [SILENCE, BROKEN])
def test_a_dashboard_that_comes_back_loses_nothing(head: Any, trouble: Answer) -> None:
    head.jobs = {"job-1": ["RUNNING", "FAILED"]}
    head.trouble = iter([None, None, *[trouble] * 5])
    outcome = play(head, watch("job-1", poll=5, patience=120))
    assert (outcome.end, outcome.job.status) == ("ended", "FAILED")


def test_a_dashboard_that_stays_away_is_unknown_and_neither_green_nor_lost(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING", "SUCCEEDED"]}
    head.trouble = iter([None, None, *[SILENCE] * 1_000])
    outcome = play(head, watch("job-1", poll=5, patience=120))
    assert outcome.end == "unknown"
    assert "Connection refused" in outcome.said


def test_a_job_that_the_head_forgot_is_lost_after_two_looks(head: Any) -> None:
    outcome = play(head, watch("job-1", poll=5, patience=60))
    assert outcome.end == "lost"
    assert head.asked.count("GET /api/version") == 2

    head.jobs = {"job-1": ["SUCCEEDED"]}
    head.trouble = iter([Answer(404, "Job job-1 does not exist")])
    assert play(head, watch("job-1", poll=5, patience=60)).job.succeeded


def test_neither_log_nor_node_count_can_spoil_a_result(head: Any) -> None:
    def only_jobs(ask: Ask) -> Answer:
        return head(ask) if ask.path == "/api/jobs/job-1" else BROKEN

    head.jobs = {"job-1": ["RUNNING", "SUCCEEDED"]}
    said: list[str] = []
    outcome = play(head, watch("job-1", poll=5, patience=60), said=said, instead=only_jobs)
    assert (outcome.end, outcome.job.status, outcome.nodes) == ("ended", "SUCCEEDED", 0)
    assert [line.split(":")[0] for line in said] == [
        "(the end of the job's log could not be read",
        "(nodes are not counted, so the job's cost is not known",
    ]


def test_at_the_deadline_the_job_is_stopped(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    outcome = play(head, watch("job-1", poll=5, patience=60, deadline=1_012.0))
    assert (outcome.end, outcome.job.status) == ("deadline", "STOPPED")
    assert "reached its time limit at 1970-01-01T00:16:52Z and was stopped" in outcome.said
    assert head.clock < 1_016


def test_a_job_that_ended_before_the_deadline_was_seen_is_judged_by_its_end(head: Any) -> None:
    for status in ("SUCCEEDED", "FAILED"):
        head.jobs = {"job-1": [status]}
        outcome = play(head, watch("job-1", poll=5, patience=60, deadline=900.0))
        assert (outcome.end, outcome.job.status) == ("ended", status)


def test_a_job_that_succeeds_while_it_is_being_stopped_has_succeeded(head: Any) -> None:
    def too_late(ask: Ask) -> Answer:
        return Answer(200, '{"stopped": false}') if ask.path.endswith("/stop") else head(ask)

    head.jobs = {"job-1": ["RUNNING", "SUCCEEDED"]}
    outcome = play(head, watch("job-1", poll=5, patience=60, deadline=900.0), instead=too_late)
    assert (outcome.end, outcome.job.status) == ("ended", "SUCCEEDED")


def test_a_job_of_somebody_else_is_left_alone_at_the_deadline(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    outcome = play(head, watch("job-1", poll=5, patience=60, deadline=1_012.0, stop_at_deadline=False))
    assert outcome.end == "deadline"
    assert not any("stop" in line for line in head.asked)


def test_stopping_waits_until_the_job_is_gone_and_says_when_it_is_not(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    assert play(head, stop("job-1", patience=10)).status == "STOPPED"
    assert play(head, stop("job-2", patience=10)) is None

    def deaf(ask: Ask) -> Answer:
        return Answer(200, '{"stopped": true}') if ask.path.endswith("/stop") else head(ask)

    head.jobs = {"job-1": ["PENDING"]}
    job = play(head, stop("job-1", patience=10, wait=20), instead=deaf)
    assert job.status == "PENDING"
