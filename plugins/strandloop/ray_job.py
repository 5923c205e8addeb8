"""What is known about a Ray job, and what follows from it: a job record, or the error that says why not."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from strandloop.errors import JobFailed, JobLost, JobTimeout, RemoteJobError, StateUnknown
from strandloop.job_record import JobRecord, iso_utc

ALIVE = frozenset({"PENDING", "RUNNING"})
# STOPPED is not success: somebody ended the job before it had finished.
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})

LAST_LINES = 30
LONGEST_LINE = 4_000
LONGEST_REASON = 4_000
# All but the tabulator and the escape that starts a colour.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0a-\x1a\x1c-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class RayJob:
    """One submission, as the Jobs API described it.

    :param status: one of Ray's five.
    :param submitted_ms: when the head took the submission (Ray's ``start_time``), ms since the epoch.
    :param ended_ms: when it became terminal, ms since the epoch.
    :param exit_code: of the driver process, None where it did not end by itself.
    """

    submission_id: str
    status: str
    submitted_ms: int
    ended_ms: int | None = None
    message: str = ""
    error_type: str = ""
    exit_code: int | None = None

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
        )

    @property
    def alive(self) -> bool:
        """Whether the job may still do something."""
        return self.status in ALIVE

    @property
    def succeeded(self) -> bool:
        """Whether the job was seen to succeed."""
        return self.status == "SUCCEEDED"

    def record(self, *, nodes: int = 0) -> JobRecord:
        """Return the job record for XCom; Ray does not tell when a job left PENDING."""
        name, attempt = identity_and_attempt(self.submission_id)
        return JobRecord(
            system="ray",
            id=self.submission_id,
            name=name,
            state=self.status,
            submitted_at=iso_utc(self.submitted_ms / 1000),
            started_at=iso_utc(self.submitted_ms / 1000),
            ended_at=iso_utc(self.ended_ms / 1000) if self.ended_ms else None,
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
class Outcome:
    """How waiting for a job ended, in values that travel through a trigger event.

    :param end: ``ended`` = the job is terminal; ``deadline`` = the limit passed first; ``lost`` = Ray
        answers and does not know the job; ``unknown`` = Ray did not answer.
    :param said: what was asked and what answered, where ``end`` is not ``ended``.
    :param nodes: nodes alive when the job ended, 0 if Ray did not say.
    """

    end: Literal["ended", "deadline", "lost", "unknown"]
    submission_id: str
    job: RayJob | None = None
    said: str = ""
    nodes: int = 0
    last_lines: tuple[str, ...] = ()

    def to_event(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "last_lines": list(self.last_lines)}

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Self:
        """Read what :meth:`to_event` wrote."""
        job = RayJob(**event["job"]) if event["job"] else None
        return cls(**{**event, "job": job, "last_lines": tuple(event["last_lines"])})

    def record(self) -> JobRecord:
        """Return the record of a job that was seen to succeed.

        :raises RemoteJobError: in every other case, by the class that fits.
        """
        if self.end == "ended" and self.job is not None and self.job.succeeded:
            return self.job.record(nodes=self.nodes)
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
    parts = [job.status, job.error_type, message[:LONGEST_REASON]]
    return ": ".join(part for part in parts if part)


class LogTail:
    """Turns a log that is always read from its start into the lines that are new.

    ``offset`` counts the characters that were shown; it stands just behind the end of a line.
    """

    def __init__(self) -> None:
        self.offset = 0
        self.last_lines: tuple[str, ...] = ()

    def feed(self, text: str, *, final: bool = False) -> list[str]:
        """Return the complete lines behind the offset; with ``final`` also a last one that has no end."""
        if len(text) < self.offset:
            self.offset = 0  # shorter than what was read before: another log
        end = len(text) if final else text.rfind("\n") + 1
        fresh = text[self.offset : end] if end > self.offset else ""
        self.offset += len(fresh)
        self.last_lines = tuple(
            _lines("\n".join(text.removesuffix("\n").rsplit("\n", LAST_LINES)[-LAST_LINES:]))
        )
        return _lines(fresh)


def _lines(text: str) -> list[str]:
    return [_printable(line) for line in text.removesuffix("\n").split("\n")] if text else []


def _printable(line: str) -> str:
    # A progress bar rewrites its line behind carriage returns: its last state is what a terminal shows.
    line = line.rstrip("\r").rpartition("\r")[2]
    line = CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", line)
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + f" … ({len(line)} characters)"
