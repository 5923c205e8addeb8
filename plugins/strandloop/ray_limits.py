"""How long a Ray job may take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from strandloop.errors import InvalidJob
from strandloop.job_record import iso_utc
from strandloop.ray_job import RayJob


@dataclass(frozen=True)
class Limits:
    """The limits of one job. Each is a point in time, so that no restart extends it.

    :param deadline: for all of it, seconds since the epoch.
    :param queue_timeout_seconds: from submission to the start of the driver.
    :param run_timeout_seconds: from the start of the driver to its end.
    :param stop: whether the job is stopped at a limit, or only the waiting ends.
    """

    deadline: float | None = None
    queue_timeout_seconds: float | None = None
    run_timeout_seconds: float | None = None
    stop: bool = True

    def next(self, job: RayJob, *, running_since: float | None) -> tuple[float, str]:
        """Return when the next limit of a living job passes, in seconds since the epoch, and what it is.

        Without any that is the end of time.
        """
        ends = [(math.inf, "")]
        latest_start = math.inf
        if self.queue_timeout_seconds is not None:
            latest_start = job.submitted_ms / 1000 + self.queue_timeout_seconds
        if self.deadline is not None:
            ends.append((self.deadline, "deadline"))
        if job.status == "PENDING":
            ends.append((latest_start, f"queue limit of {self.queue_timeout_seconds} s"))
        elif self.run_timeout_seconds is not None and running_since is not None:
            # Where nobody saw when it began, it was before the end of the queue limit.
            start = min(running_since, latest_start)
            ends.append((start + self.run_timeout_seconds, f"run limit of {self.run_timeout_seconds} s"))
        return min(ends)


def seconds_of(deadline: datetime | str | None) -> float | None:
    """Return a deadline in seconds since the epoch.

    :raises InvalidJob: if it is no date and time, or has no time zone.
    """
    if deadline is None:
        return None
    try:
        moment = datetime.fromisoformat(deadline) if isinstance(deadline, str) else deadline
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, AttributeError) as error:
        raise InvalidJob(f"deadline: {deadline!r} is not an ISO 8601 date and time") from error
    raise InvalidJob(
        f"deadline: {deadline!r} has no time zone, so it names no point in time; end it with +00:00, or use a "
        "date of Airflow's, which has one"
    )


def passed_in_words(limit: str, when: float, job: RayJob, *, stopped: bool) -> str:
    """Say which limit a job reached, and what became of it.

    :param job: as it was after it had been told to stop.
    """
    if not stopped:
        return f"still {job.status} at {iso_utc(when)}, the end of waiting; it was left alone"
    reached = f"reached its {limit} at {iso_utc(when)}"
    if job.status == "PENDING":
        return f"{reached} and was told to stop: if it ever gets its resources, Ray ends it at once"
    if job.alive:
        return f"{reached}, was told to stop, and is still {job.status}"
    return f"{reached} and was stopped"
