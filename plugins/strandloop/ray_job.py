"""What is known about a Ray job, and what follows from it: a job record, or the error that says why not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from strandloop.errors import JobFailed, JobLost, JobTimeout, RemoteJobError, StateUnknown
from strandloop.job_record import JobRecord, iso_utc
from strandloop.ray_bookmark import Bookmark

ALIVE = frozenset({"PENDING", "RUNNING"})
# STOPPED is not success: somebody ended the job before it had finished.
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})

# Of Ray's message; the cause stands at its end where it is long, as with the output of pip.
REASON_HEAD, REASON_TAIL = 1_000, 3_000


@dataclass(frozen=True)
class RayJob:
    """One submission, as the Jobs API described it.

    :param status: one of Ray's five.
    :param submitted_ms: when the head took the submission (Ray's ``start_time``), ms since the epoch.
    :param ended_ms: when it became terminal, ms since the epoch.
    :param exit_code: of the driver process, None where it did not end by itself.
    :param driver_node_id: the node that the driver runs on, which has its log; empty before it runs.
    """

    submission_id: str
    status: str
    submitted_ms: int
    ended_ms: int | None = None
    message: str = ""
    error_type: str = ""
    exit_code: int | None = None
    driver_node_id: str = ""

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> Self:
        """Read the answer of ``GET /api/jobs/<submission id>``.

        :raises ValueError: if it is no description of a submitted job, or its status is not one of Ray's.
        """
        status, submitted_ms = answer.get("status"), answer.get("start_time")
        submission_id = answer.get("submission_id")
        if status not in ALIVE | ENDED or not submission_id or not isinstance(submitted_ms, int):
            raise ValueError(f"not the description of a Ray job: {str(answer)[:200]}")
        return cls(
            submission_id=submission_id,
            status=status,
            submitted_ms=submitted_ms,
            ended_ms=answer.get("end_time"),
            message=answer.get("message") or "",
            error_type=answer.get("error_type") or "",
            exit_code=answer.get("driver_exit_code"),
            driver_node_id=answer.get("driver_node_id") or "",
        )

    @property
    def alive(self) -> bool:
        """Whether the job may still do something."""
        return self.status in ALIVE

    @property
    def succeeded(self) -> bool:
        """Whether the job was seen to succeed."""
        return self.status == "SUCCEEDED"

    @property
    def bookmark(self) -> Bookmark:
        """A bookmark at the very start of this job."""
        return Bookmark(self.submission_id, self.submitted_ms)

    def record(self, *, nodes: int = 0, running_since: float | None = None) -> JobRecord:
        """Return the job record for XCom.

        :param running_since: seconds since the epoch; where it is not known, the job counts as started when
            it was submitted.
        """
        name, attempt = identity_and_attempt(self.submission_id)
        submitted = self.submitted_ms / 1000
        ended = self.ended_ms / 1000 if self.ended_ms else None
        started = max(submitted, running_since or submitted)
        return JobRecord(
            system="ray",
            id=self.submission_id,
            name=name,
            state=self.status,
            submitted_at=iso_utc(submitted),
            started_at=iso_utc(min(started, ended or started)),
            ended_at=iso_utc(ended) if ended else None,
            nodes=nodes,
            attempt=attempt,
        )


def submission_id_of(identity: str, *, attempt: int) -> str:
    """Name one attempt of a job identity; Ray refuses to take the same name twice."""
    return f"{identity}-{attempt}"


def identity_and_attempt(submission_id: str) -> tuple[str, int]:
    """Take a submission id apart again; one that somebody else chose is its own identity, attempt 1."""
    match = re.fullmatch(r"([0-9a-f-]{36})-([0-9]+)", submission_id)
    return (match[1], int(match[2])) if match else (submission_id, 1)


@dataclass(frozen=True)
class Attempts:
    """What Ray knows of an identity: the jobs by their numbers, from 1; None where it knows none."""

    jobs: tuple[RayJob | None, ...]

    @property
    def alive(self) -> list[RayJob]:
        """The attempts that may still do something; more than one only where somebody else submitted."""
        return [job for job in self._known() if job.alive]

    @property
    def result(self) -> RayJob | None:
        """The last attempt that was seen to succeed."""
        return next((job for job in reversed(list(self._known())) if job.succeeded), None)

    def next_number(self, *, submitted: int) -> int:
        """Return the number of the next attempt.

        :param submitted: the last one that Ray is known to have taken; where it does not know it any more,
            it is lost, and its number is used up.
        """
        known = [number for number, job in enumerate(self.jobs, start=1) if job is not None]
        return max([submitted, *known], default=0) + 1

    def _known(self) -> Iterator[RayJob]:
        return (job for job in self.jobs if job is not None)


@dataclass(frozen=True)
class Outcome:
    """How waiting for a job ended, in values that travel through a trigger event.

    :param end: ``ended`` = the job is terminal; ``deadline`` = a limit passed first, and ``said`` tells
        which; ``lost`` = Ray answers and does not know the job; ``unknown`` = Ray did not answer.
    :param said: what was asked and what answered, where ``end`` is not ``ended``.
    :param nodes: nodes alive when the job ended, 0 if Ray did not say.
    :param bookmark: how far the job was followed.
    """

    end: Literal["ended", "deadline", "lost", "unknown"]
    submission_id: str
    job: RayJob | None = None
    said: str = ""
    nodes: int = 0
    last_lines: tuple[str, ...] = ()
    bookmark: Bookmark | None = None

    def to_event(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "last_lines": list(self.last_lines)}

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Self:
        """Read what :meth:`to_event` wrote, in this version or another: keys that it lacks or adds are fine."""
        known = _known(cls, event)
        job = event.get("job")
        return cls(
            **{
                **known,
                "job": RayJob(**_known(RayJob, job)) if job else None,
                "last_lines": tuple(event.get("last_lines") or ()),
                "bookmark": Bookmark.from_json(event.get("bookmark")),
            }
        )

    def record(self) -> JobRecord:
        """Return the record of a job that was seen to succeed.

        :raises RemoteJobError: in every other case, by the class that fits.
        """
        if self.end == "ended" and self.job is not None and self.job.succeeded:
            since = self.bookmark.running_since if self.bookmark else None
            return self.job.record(nodes=self.nodes, running_since=since)
        raise self._error()

    def _error(self) -> RemoteJobError:
        title = f"Ray job {self.submission_id}"
        if self.end == "lost":
            return JobLost(f"{title}: {self.said}")
        if self.end == "unknown" or self.job is None:
            return StateUnknown(f"{title}: {self.said}")
        if self.end == "deadline":
            return JobTimeout(title, reason=self.said, last_lines=self.last_lines)
        return JobFailed(
            title, reason=_reason(self.job), exit_code=self.job.exit_code, last_lines=self.last_lines
        )


def _reason(job: RayJob) -> str:
    # Ray repeats the end of the log inside its message; ours is longer and stands below.
    message = job.message.split(", last available logs", maxsplit=1)[0].strip()
    if len(message) > REASON_HEAD + REASON_TAIL:
        message = f"{message[:REASON_HEAD]}\n[...]\n{message[-REASON_TAIL:]}"
    parts = [job.status, job.error_type, message]
    return ": ".join(part for part in parts if part)


def _known(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in values.items() if name in names}
