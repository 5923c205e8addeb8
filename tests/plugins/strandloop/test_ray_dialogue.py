"""Dialogues with a head that is played, by a clock that only pauses move."""

from __future__ import annotations

from typing import Any

import pytest

from strandloop.code_archive import CodeArchive
from strandloop.errors import JobLost, StateUnknown, SubmitRefused
from strandloop.ray_dialogue import (
    ORPHAN_SECONDS,
    PENDING_STOP_WAIT,
    Answer,
    Ask,
    find,
    find_attempts,
    outlive_orphans,
    stop,
    submit,
    upload,
)

INVALID = """Traceback (most recent call last):
RuntimeError: Request failed with status code 400: Traceback (most recent call last):
TypeError: metadata values must be strings, got <class 'int'>
."""
NO_AGENT = "No available agent to submit job, please try again later."
SILENCE = Answer(None, "ConnectError: [Errno 111] Connection refused")
BROKEN = Answer(500, "Traceback (most recent call last): ...")


def test_a_job_is_found_or_proven_absent(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    assert head.play(find("job-1", patience=10)).status == "RUNNING"
    assert head.play(find("job-2", patience=10)) is None
    assert head.asked[-1] == "GET /api/version"


@pytest.mark.parametrize(
    "trouble",
    [
        SILENCE,
        BROKEN,
        Answer(404, "<html>no such page at this proxy</html>"),
        Answer(404, '{"status": 404, "error": "Not Found", "path": "/api/jobs/job-1"}'),
        Answer(200, "<html>please log in</html>"),
        Answer(200, "[]"),
        Answer(200, '{"status": "FINISHED", "submission_id": "job-1", "start_time": 1}'),
        Answer(200, '{"status": "SUCCEEDED", "submission_id": "job-2", "start_time": 1}'),
        Answer(401, "Unauthorized: Missing authentication token"),
    ],
)
def test_only_rays_own_answer_is_evidence(head: Any, trouble: Answer) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    head.trouble = iter([trouble, trouble])
    assert head.play(find("job-1", patience=60)).status == "RUNNING"

    head.trouble = iter(lambda: trouble, None)
    started = head.clock
    with pytest.raises(StateUnknown) as raised:
        head.play(find("job-1", patience=60))
    assert 60 <= head.clock - started < 61
    assert "/api/jobs/job-1 within 60 s" in str(raised.value)
    assert trouble.text[:40] in str(raised.value)


def test_a_job_is_not_absent_while_the_version_is_silent(head: Any) -> None:
    absent = Answer(404, "Job job-1 does not exist")
    head.trouble = iter([absent, *[SILENCE] * 1_000])
    with pytest.raises(StateUnknown, match="/api/version"):
        head.play(find("job-1", patience=60))


def test_the_attempts_of_an_identity_are_found_over_a_gap(head: Any) -> None:
    head.jobs = {"id-1": ["FAILED"], "id-3": ["RUNNING"]}
    attempts = head.play(find_attempts("id", at_least=0, patience=10))
    assert [job.status for job in attempts.jobs] == ["FAILED"]
    attempts = head.play(find_attempts("id", at_least=2, patience=10))
    assert [job and job.status for job in attempts.jobs] == ["FAILED", None, "RUNNING"]


def test_while_ray_is_silent_nothing_is_looked_up_and_nothing_submitted(head: Any) -> None:
    head.trouble = iter(lambda: SILENCE, None)
    with pytest.raises(StateUnknown):
        head.play(find_attempts("id", at_least=0, patience=10))


def test_a_job_is_submitted_once_however_often_the_answer_is_lost(head: Any) -> None:
    assert head.play(submit({"submission_id": "job-1"}, patience=10)).status == "PENDING"

    def lose_the_answer(ask: Ask) -> Answer:
        answer = head(ask)
        return Answer(None, "ReadTimeout: ") if ask.method == "POST" else answer

    job = head.play(submit({"submission_id": "job-2"}, patience=10), instead=lose_the_answer)
    assert job.submission_id == "job-2"
    assert head.asked.count("POST /api/jobs/") == 2


def test_a_duplicate_is_attached_to(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    assert head.play(submit({"submission_id": "job-1"}, patience=10)).status == "RUNNING"


def test_a_head_whose_agent_is_not_up_yet_is_asked_again(head: Any) -> None:
    head.trouble = iter([Answer(500, NO_AGENT)])
    assert head.play(submit({"submission_id": "job-1"}, patience=10)).status == "PENDING"
    assert head.asked.count("POST /api/jobs/") == 2


@pytest.mark.parametrize("refusal", [Answer(500, INVALID), Answer(400, INVALID), Answer(403, "Forbidden")])
def test_a_refusal_is_not_repeated_and_says_why(head: Any, refusal: Answer) -> None:
    head.trouble = iter([refusal])
    with pytest.raises(SubmitRefused, match=r"metadata values must be strings|Forbidden"):
        head.play(submit({"submission_id": "job-1"}, patience=10))
    assert head.asked == ["POST /api/jobs/"]


def test_a_proxys_page_refuses_nothing(head: Any) -> None:
    head.trouble = iter([Answer(404, "<html>404 Not Found</html>"), None, None, Answer(403, " <html>")])
    assert head.play(submit({"submission_id": "job-1"}, patience=60)).status == "PENDING"
    assert head.asked.count("POST /api/jobs/") == 3


def test_a_job_that_was_taken_and_forgotten_is_not_submitted_again(head: Any) -> None:
    head.life = ("GONE",)
    with pytest.raises(JobLost, match="took job job-1 and does not know it"):
        head.play(submit({"submission_id": "job-1"}, patience=60))
    assert len(head.submissions) == 1


def test_a_submission_without_any_answer_may_have_been_taken(head: Any) -> None:
    def silent(ask: Ask) -> Answer:
        return SILENCE if ask.method == "POST" else head(ask)

    with pytest.raises(StateUnknown, match="did not say within 60 s whether it took job job-1"):
        head.play(submit({"submission_id": "job-1"}, patience=60), instead=silent)


def test_a_submission_that_is_never_taken_is_given_up(head: Any) -> None:
    def no_agent(ask: Ask) -> Answer:
        return Answer(500, NO_AGENT) if ask.method == "POST" else head(ask)

    with pytest.raises(SubmitRefused, match="No available agent"):
        head.play(submit({"submission_id": "job-1"}, patience=60), instead=no_agent)


def test_code_is_sent_once(head: Any) -> None:
    archive = CodeArchive(b"zip")
    assert head.play(upload(archive, patience=10)) is True
    assert head.play(upload(archive, patience=10)) is False
    assert [line.split()[0] for line in head.asked] == ["GET", "PUT", "GET"]


def test_code_is_sent_only_where_ray_itself_says_that_it_has_none(head: Any) -> None:
    head.trouble = iter(
        [Answer(404, "<html>not here</html>"), Answer(502, "<html>"), None, Answer(404, "no")]
    )
    assert head.play(upload(CodeArchive(b"zip"), patience=60)) is True
    assert [line.split()[0] for line in head.asked] == ["GET", "GET", "GET", "PUT", "PUT"]


def test_stopping_waits_until_the_job_is_gone_and_says_when_it_is_not(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    assert head.play(stop("job-1", patience=10)).status == "STOPPED"
    assert head.play(stop("job-2", patience=10)) is None

    head.jobs, head.waiting = {"job-1": ["RUNNING"]}, {"job-1"}
    assert head.play(stop("job-1", patience=10, wait=20)).status == "RUNNING"


def test_a_job_that_waits_for_resources_cannot_be_stopped_before_it_would_start(head: Any) -> None:
    head.jobs, head.waiting = {"job-1": ["PENDING"]}, {"job-1"}
    began = head.clock
    assert head.play(stop("job-1", patience=10)).status == "PENDING"
    assert PENDING_STOP_WAIT <= head.clock - began < PENDING_STOP_WAIT + 3


def test_each_question_of_a_stop_leaves_time_for_another(head: Any) -> None:
    waits: list[float] = []

    def slow(ask: Ask) -> Answer:
        waits.append(ask.wait)
        head.clock += ask.wait
        return Answer(None, "ReadTimeout: ")

    began = head.clock
    with pytest.raises(StateUnknown):
        head.play(stop("job-1", patience=1, wait=24), instead=slow)
    assert waits[0] == 12
    assert head.clock - began < 60


def test_nothing_takes_the_place_of_a_lost_job_before_its_driver_is_dead(head: Any) -> None:
    said: list[str] = []
    head.head_since_ms = int((head.clock - 20) * 1000)
    began = head.clock
    head.play(outlive_orphans(patience=10), said=said)
    assert head.clock - began == pytest.approx(ORPHAN_SECONDS - 20, abs=0.1)
    assert "Ray's head is new" in said[0]

    head.head_since_ms = 0
    began = head.clock
    head.play(outlive_orphans(patience=10))
    assert head.clock - began < 0.1


def test_a_head_that_does_not_tell_its_age_counts_as_new(head: Any) -> None:
    head.trouble = iter(lambda: BROKEN, None)
    began = head.clock
    head.play(outlive_orphans(patience=10))
    assert head.clock - began >= ORPHAN_SECONDS
