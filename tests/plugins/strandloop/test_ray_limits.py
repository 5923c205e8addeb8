from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from strandloop.errors import InvalidJob
from strandloop.ray_job import RayJob
from strandloop.ray_limits import Limits, seconds_of


def job(status: str) -> RayJob:
    return RayJob("job-1", status=status, submitted_ms=1_000_000)


@pytest.mark.parametrize(
    ("limits", "status", "running_since", "when", "which"),
    [
        (Limits(), "PENDING", None, math.inf, ""),
        (Limits(), "RUNNING", 1_100.0, math.inf, ""),
        (Limits(5_000.0), "PENDING", None, 5_000.0, "deadline"),
        (Limits(queue_timeout_seconds=60), "PENDING", None, 1_060.0, "queue limit of 60 s"),
        (Limits(queue_timeout_seconds=60), "RUNNING", 1_010.0, math.inf, ""),
        (Limits(run_timeout_seconds=30), "PENDING", None, math.inf, ""),
        (Limits(run_timeout_seconds=30), "RUNNING", 1_010.0, 1_040.0, "run limit of 30 s"),
        (
            Limits(run_timeout_seconds=30, queue_timeout_seconds=5),
            "RUNNING",
            9_000.0,
            1_035.0,
            "run limit of 30 s",
        ),
        (Limits(1_020.0, run_timeout_seconds=30), "RUNNING", 1_010.0, 1_020.0, "deadline"),
        (Limits(2_000.0, queue_timeout_seconds=60), "PENDING", None, 1_060.0, "queue limit of 60 s"),
    ],
)
def test_the_first_limit_counts(
    limits: Limits, status: str, running_since: float | None, when: float, which: str
) -> None:
    assert limits.next(job(status), running_since=running_since) == (when, which)


@pytest.mark.parametrize(
    "deadline",
    [
        datetime(2026, 11, 20, 6, tzinfo=UTC),
        "2026-11-20T06:00:00+00:00",
        "2026-11-20 06:00:00+00:00",
        "2026-11-20T06:00:00Z",
        "2026-11-20T07:00:00+01:00",
    ],
)
def test_a_deadline_is_a_point_in_time(deadline: datetime | str) -> None:
    assert seconds_of(deadline) == datetime(2026, 11, 20, 6, tzinfo=UTC).timestamp()


def test_there_need_be_no_deadline() -> None:
    assert seconds_of(None) is None


@pytest.mark.parametrize("deadline", [datetime(2026, 11, 20, 6), "2026-11-20T06:00:00", "2026-11-20"])
def test_a_time_without_a_zone_is_refused(deadline: datetime | str) -> None:
    with pytest.raises(InvalidJob, match="has no time zone"):
        seconds_of(deadline)


@pytest.mark.parametrize("deadline", ["", "None", "in six hours", 6.0])
def test_what_is_no_time_is_refused(deadline: object) -> None:
    with pytest.raises(InvalidJob, match="not an ISO 8601 date and time"):
        seconds_of(deadline)  # type: ignore[arg-type]
