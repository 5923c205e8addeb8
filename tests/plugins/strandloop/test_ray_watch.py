"""Following a job of a head that is played, by a clock that only pauses move."""

from __future__ import annotations

import json
from typing import Any

import pytest

from strandloop.ray_bookmark import Bookmark
from strandloop.ray_dialogue import Answer, Ask
from strandloop.ray_job import Outcome
from strandloop.ray_limits import Limits
from strandloop.ray_watch import KEEP_SECONDS, watch

SILENCE = Answer(None, "ConnectError: [Errno 111] Connection refused")
BROKEN = Answer(500, "Traceback (most recent call last): ...")


def follow(head: Any, **kwargs: Any) -> Outcome:
    heard = {name: kwargs.pop(name) for name in ("said", "kept", "instead") if name in kwargs}
    outcome: Outcome = head.play(watch("job-1", **{"poll": 5, "patience": 60, **kwargs}), **heard)
    return outcome


def status_of(outcome: Outcome) -> str | None:
    return outcome.job and outcome.job.status


def test_a_job_is_watched_to_its_end_with_its_log(head: Any) -> None:
    head.jobs = {"job-1": ["PENDING", "RUNNING", "SUCCEEDED"]}
    head.log = b"one\ntwo"
    said: list[str] = []
    outcome = follow(head, said=said)
    assert (outcome.end, status_of(outcome), outcome.nodes) == ("ended", "SUCCEEDED", 2)
    assert said == ["one", "two"]
    assert outcome.last_lines == ("one", "two")


@pytest.mark.parametrize("trouble", [SILENCE, BROKEN])
def test_a_dashboard_that_comes_back_loses_nothing(head: Any, trouble: Answer) -> None:
    head.jobs = {"job-1": ["RUNNING", "FAILED"]}
    head.trouble = iter([None, *[trouble] * 5])
    outcome = follow(head, patience=120)
    assert (outcome.end, status_of(outcome)) == ("ended", "FAILED")


def test_a_dashboard_that_stays_away_is_unknown_and_neither_green_nor_lost(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING", "SUCCEEDED"]}
    head.trouble = iter([None, None, *[SILENCE] * 1_000])
    outcome = follow(head, patience=120)
    assert outcome.end == "unknown"
    assert "Connection refused" in outcome.said


def test_a_job_that_the_head_forgot_is_lost_after_two_looks(head: Any) -> None:
    assert follow(head).end == "lost"
    assert head.asked.count("GET /api/version") == 2

    head.jobs = {"job-1": ["SUCCEEDED"]}
    head.trouble = iter([Answer(404, "Job job-1 does not exist")])
    assert status_of(follow(head)) == "SUCCEEDED"


def test_neither_log_nor_node_count_can_spoil_a_result(head: Any) -> None:
    def only_jobs(ask: Ask) -> Answer:
        return head(ask) if ask.path == "/api/jobs/job-1" else BROKEN

    head.jobs = {"job-1": ["RUNNING", "SUCCEEDED"]}
    head.read_log = lambda path: BROKEN
    said: list[str] = []
    outcome = follow(head, said=said, instead=only_jobs)
    assert (outcome.end, status_of(outcome), outcome.nodes) == ("ended", "SUCCEEDED", 0)
    assert [line.split(":")[0] for line in said] == [
        "(the job's log could not be read",
        "(nodes are not counted, so the job's cost is not known",
    ]


def test_a_log_that_cannot_be_read_for_long_is_told_once(head: Any) -> None:
    head.jobs = {"job-1": [*["RUNNING"] * 40, "SUCCEEDED"]}
    head.read_log = lambda path: Answer(403, "not through this proxy")
    said: list[str] = []
    follow(head, said=said)
    assert (
        said
        == [
            "(the job's log could not be read: HTTP 403: not through this proxy; check the token or "
            "the login of the connection)"
        ]
        * 2
    )  # while it runs, and at the end


def test_a_job_that_never_ran_has_no_log_to_wait_for(head: Any) -> None:
    head.jobs = {"job-1": ["PENDING", "FAILED"]}
    head.describe = lambda name, describe=head.describe: {**describe(name), "driver_node_id": None}
    assert follow(head).end == "ended"
    assert not any("/logs/" in asked for asked in head.asked)


def test_a_large_log_is_read_less_often(head: Any) -> None:
    head.jobs = {"job-1": [*["RUNNING"] * 20, "SUCCEEDED"]}
    head.log = b"x" * 99 + b"\n"
    follow(head, poll=1)
    often = sum("/logs/" in asked for asked in head.asked)
    head.asked.clear()
    head.jobs = {"job-1": [*["RUNNING"] * 20, "SUCCEEDED"]}
    head.log = head.log * 100_000
    follow(head, poll=1)
    assert often == 21
    assert sum("/logs/" in asked for asked in head.asked) == 3


@pytest.mark.parametrize(
    ("limits", "states", "said"),
    [
        (Limits(1_012.0), ["RUNNING"], "reached its deadline at 1970-01-01T00:16:52Z and was stopped"),
        (Limits(1_012.0), ["PENDING"], "reached its deadline at 1970-01-01T00:16:52Z and was stopped"),
        (
            Limits(queue_timeout_seconds=12),
            ["PENDING"],
            "reached its queue limit of 12 s at 1970-01-01T00:16:52Z and was stopped",
        ),
        (
            Limits(run_timeout_seconds=4, queue_timeout_seconds=1_000),
            [*["PENDING"] * 3, "RUNNING"],
            "reached its run limit of 4 s at 1970-01-01T00:16:52Z and was stopped",
        ),
    ],
)
def test_at_a_limit_the_job_is_stopped_and_the_limit_is_named(
    head: Any, limits: Limits, states: list[str], said: str
) -> None:
    head.jobs, head.driver_since_ms = {"job-1": states}, 1_008_000
    outcome = follow(head, limits=limits)
    assert (outcome.end, status_of(outcome), outcome.said) == ("deadline", "STOPPED", said)
    assert 1_012 <= head.clock < 1_022


def test_the_queue_limit_does_not_touch_a_job_that_runs(head: Any) -> None:
    head.jobs = {"job-1": [*["RUNNING"] * 20, "SUCCEEDED"]}
    assert follow(head, limits=Limits(queue_timeout_seconds=12)).end == "ended"


def test_a_job_that_waits_on_although_it_was_stopped_is_told_apart(head: Any) -> None:
    head.jobs, head.waiting = {"job-1": ["PENDING"]}, {"job-1"}
    outcome = follow(head, limits=Limits(queue_timeout_seconds=12))
    assert outcome.end == "deadline"
    assert "was told to stop: if it ever gets its resources, Ray ends it at once" in outcome.said


def test_a_restart_does_not_extend_the_time_to_run(head: Any) -> None:
    limits = Limits(run_timeout_seconds=60)
    head.jobs, head.driver_since_ms = {"job-1": [*["RUNNING"] * 3, "GONE"]}, 1_000_000
    first = follow(head, limits=limits)
    assert first.bookmark is not None
    assert first.bookmark.running_since == 1_000.0

    head.jobs, head.driver_since_ms = {"job-1": ["RUNNING"]}, 0  # Ray does not tell any more
    assert follow(head, limits=limits, bookmark=first.bookmark).end == "deadline"
    assert 1_060 <= head.clock < 1_070


def test_where_ray_does_not_tell_when_a_job_began_it_counts_from_the_first_look(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    head.clock = 2_000.0
    outcome = follow(head, limits=Limits(run_timeout_seconds=60))
    assert outcome.end == "deadline"
    assert 2_060 <= head.clock < 2_070

    # The queue limit bounds it: submitted at 1,000 s, it ran at 1,100 s or was stopped.
    head.jobs = {"job-1": ["RUNNING"]}
    began = head.clock
    follow(head, limits=Limits(run_timeout_seconds=60, queue_timeout_seconds=100))
    assert head.clock - began < 10


def test_a_job_that_ended_before_a_limit_was_seen_is_judged_by_its_end(head: Any) -> None:
    for status in ("SUCCEEDED", "FAILED"):
        head.jobs = {"job-1": [status]}
        outcome = follow(head, limits=Limits(900.0))
        assert (outcome.end, status_of(outcome)) == ("ended", status)


def test_a_job_that_succeeds_while_it_is_being_stopped_has_succeeded(head: Any) -> None:
    def too_late(ask: Ask) -> Answer:
        return Answer(200, '{"stopped": false}') if ask.path.endswith("/stop") else head(ask)

    head.jobs = {"job-1": ["RUNNING", "SUCCEEDED"]}
    outcome = follow(head, limits=Limits(900.0), instead=too_late)
    assert (outcome.end, status_of(outcome)) == ("ended", "SUCCEEDED")


def test_a_job_that_is_forgotten_while_it_is_being_stopped_is_lost(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING", "GONE"]}
    assert follow(head, limits=Limits(900.0)).end == "lost"


def test_a_job_of_somebody_else_is_left_alone_at_the_deadline(head: Any) -> None:
    head.jobs = {"job-1": ["RUNNING"]}
    outcome = follow(head, limits=Limits(1_012.0, stop=False))
    assert (outcome.end, outcome.said) == (
        "deadline",
        "still RUNNING at 1970-01-01T00:16:52Z, the end of waiting; it was left alone",
    )
    assert not any("stop" in line for line in head.asked)


def test_one_who_goes_on_from_a_bookmark_repeats_and_loses_no_line(head: Any) -> None:
    kept: list[Bookmark] = []
    said: list[str] = []
    head.jobs, head.log = {"job-1": ["RUNNING", "GONE"]}, b"one\ntwo\nthr"
    follow(head, said=said, kept=kept)
    assert said == ["one", "two"]
    assert kept[-1] == Bookmark("job-1", 1_000_000, log_bytes=8, running_since=kept[-1].running_since)

    head.jobs, head.log = {"job-1": ["RUNNING", "SUCCEEDED"]}, b"one\ntwo\nthree\nfour\n"
    outcome = follow(head, said=said, kept=kept, bookmark=Bookmark.from_json(kept[-1].to_json()))
    assert said == ["one", "two", "three", "four"]
    assert outcome.last_lines == ("one", "two", "three", "four")
    assert outcome.bookmark == kept[-1]
    assert kept[-1].log_bytes == len(head.log)


@pytest.mark.parametrize("other", [Bookmark("job-2", 1_000_000, 8), Bookmark("job-1", 999_999, 8)])
def test_a_bookmark_of_another_submission_is_ignored(head: Any, other: Bookmark) -> None:
    said: list[str] = []
    head.jobs, head.log = {"job-1": ["SUCCEEDED"]}, b"one\ntwo\n"
    follow(head, said=said, bookmark=other)
    assert said == ["one", "two"]


def test_bookmarks_are_kept_at_a_pace_and_only_when_something_moved(head: Any) -> None:
    kept: list[Bookmark] = []
    head.jobs = {"job-1": [*["RUNNING"] * 100, "SUCCEEDED"]}

    def growing(name: str, describe: Any = head.describe) -> dict[str, Any]:
        if head.clock < 1_020:
            head.log += b"more\n"
        answer: dict[str, Any] = describe(name)
        return answer

    head.describe = growing
    follow(head, poll=1, kept=kept)
    assert len(kept) == pytest.approx(20 / KEEP_SECONDS, abs=2)
    assert kept[-1].log_bytes == len(head.log)


def test_progress_is_shown_at_its_pace_and_not_as_it_is_printed(head: Any) -> None:
    said: list[str] = []
    lines = [f"@progress {json.dumps({'percent': percent})}" for percent in (1, 2, 3, 50)]
    head.jobs, head.log = {"job-1": ["SUCCEEDED"]}, "\n".join([*lines, "done", ""]).encode()
    outcome = follow(head, said=said)
    assert said == ["progress: 1.0 % done", "progress: 50.0 % done", "done"]
    assert outcome.last_lines == ("done",)
