"""Waiting for one Slurm job, without doing any input or output itself.

A caller runs :meth:`SlurmWatch.command` on the login node, hands the answer to
:meth:`SlurmWatch.observe`, sleeps for :meth:`SlurmWatch.pause` seconds, and repeats that until an
:class:`Outcome` comes out. The synchronous operator and the trigger are two such callers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Self

from strandloop.job_record import JobRecord
from strandloop.slurm_answers import parse_poll
from strandloop.slurm_commands import Command, conclude, poll
from strandloop.slurm_log import LogTail, printable
from strandloop.slurm_state import JobState, Resolution, resolve

#: Bytes of log per poll, small enough not to hold an event loop up; a longer log is read without a pause.
LOG_PIECE = 64 * 1024

#: So many looks in a row must find nothing out, over the time below, before the job counts as UNKNOWN.
UNKNOWN_LOOKS = 3

#: Lines of its log that a failed job's error shows.
LAST_LINES = 20


@dataclass(frozen=True)
class WatchPlan:
    """What is waited for, and how long. Plain JSON values: a trigger carries it between processes.

    :param record: the job's reference, as :meth:`JobRecord.to_xcom` gives it.
    :param reader: name of who reads the log, of letters, digits and ``-``.
    :param queue_timeout_seconds: longest wait from submission to first start; ``None`` for no limit.
    :param run_timeout_seconds: longest run, counted from the job's start as Slurm reports it.
    :param unknown_timeout_seconds: how long nobody may be able to say how the job stands.
    """

    record: dict[str, Any]
    reader: str
    poll_interval_seconds: float = 15.0
    queue_timeout_seconds: float | None = None
    run_timeout_seconds: float | None = None
    unknown_timeout_seconds: float = 600.0

    def to_kwargs(self) -> dict[str, Any]:
        """Return the fields as keyword arguments."""
        return asdict(self)


@dataclass(frozen=True)
class Outcome:
    """How the wait ended.

    :param limit: the limit of the task that passed, ``queue`` or ``run``, or ``never`` for a job that Slurm
        will not start; the job still lives then.
    :param invalid: why the connection cannot work at all; the job was not seen then.
    """

    record: dict[str, Any]
    state: str
    reason: str
    exit_code: int | None = None
    nodes: str = ""
    last_lines: tuple[str, ...] = ()
    limit: str = ""
    invalid: str = ""

    @property
    def failed(self) -> bool:
        """The job was seen to fail."""
        return JobState(self.state).failed

    def to_event(self) -> dict[str, Any]:
        """Return plain JSON values for a trigger event."""
        return {**asdict(self), "last_lines": list(self.last_lines)}

    def with_log_end(self, text: bytes) -> Self:
        """Return this outcome with the last lines of the log's end."""
        lines = [printable(line) for line in text.splitlines()]
        return replace(self, last_lines=tuple(lines[-LAST_LINES:]))

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Self:
        """Read what :meth:`to_event` wrote."""
        return cls(**{**event, "last_lines": tuple(event["last_lines"])})


class SlurmWatch:
    """State of one wait: what was seen last, how much of the log was passed on, what is unknown.

    :param log: receives the job's log lines and changes of its state.
    """

    def __init__(self, plan: WatchPlan, *, log: Callable[[str], None]) -> None:
        self.plan = plan
        self.record = JobRecord.from_xcom(plan.record)
        if self.record.job_dir is None:
            raise ValueError(f"not a reference to a Slurm job: it has no job_dir: {plan.record!r}")
        self._log = log
        self._tail: LogTail | None = None
        self._offset_told = 0
        self._seen = ""
        self._more = False
        self._unknown_since: float | None = None
        self._unknown_looks = 0

    def command(self) -> Command:
        """Return the next question to the login node."""
        return poll(
            str(self.record.job_dir),
            job_id=self.record.id,
            reader=self.plan.reader,
            offset=self._tail.offset if self._tail else None,
            limit=LOG_PIECE,
        )

    @property
    def behind(self) -> bool:
        """There is more log to read, or the cluster was not yet told how far it was read."""
        return self._more or (self._tail is not None and self._tail.offset != self._offset_told)

    def observe(self, answer: bytes, *, now: float) -> Outcome | None:
        """Take the answer; return the outcome once the wait is over.

        :param now: seconds since the epoch.
        """
        try:
            evidence, offset, piece = parse_poll(answer, job_id=self.record.id, name=self.record.name)
        except ValueError as error:
            return self.unanswered(str(error), now=now)
        if self._tail is None:
            self._tail = LogTail(offset)
        self._offset_told = offset
        for line in self._tail.feed(piece):
            self._log(line)
        self._more = len(piece) == LOG_PIECE
        resolution = resolve(evidence)
        if resolution.state is JobState.UNKNOWN:
            return self._unknown(resolution.reason, now=now)
        self._unknown_since, self._unknown_looks = None, 0
        self._tell(resolution)
        if resolution.stuck:
            reason = f"Slurm took it and will never start it, for {resolution.stuck} ({resolution.reason})"
            return replace(self._outcome(resolution), reason=reason, limit="never")
        if resolution.state.alive:
            return self._past_a_limit(resolution, now=now)
        if self._more:
            return None
        for line in self._tail.finish():
            self._log(line)
        return self._outcome(resolution)

    def unanswered(self, error: str, *, now: float) -> Outcome | None:
        """Take note that the question could not be put, or was not answered in full."""
        return self._unknown(error, now=now)

    def closing(self, outcome: Outcome) -> Command:
        """Return what to run once a job has failed: it keeps the verdict and prints the log's end."""
        limits = {"queue": JobState.TIMEOUT, "run": JobState.TIMEOUT, "never": JobState.FAILED}
        verdict = Resolution(
            limits[outcome.limit] if outcome.limit else JobState(outcome.state),
            outcome.reason,
            exit_code=outcome.exit_code,
            nodes=outcome.nodes,
            node_count=outcome.record["nodes"],
            started_at=outcome.record["started_at"],
            ended_at=outcome.record["ended_at"],
        )
        return conclude(str(self.record.job_dir), verdict=verdict.to_verdict(self.record.id))

    def pause(self) -> float:
        """Return seconds to the next question; jittered, so that many waits do not ask at once."""
        if self._more:
            return 0.0
        return self.plan.poll_interval_seconds * random.uniform(0.8, 1.2)

    def _unknown(self, what: str, *, now: float) -> Outcome | None:
        self._unknown_looks += 1
        if self._unknown_since is None:
            self._unknown_since = now
            self._log(f"cannot tell how Slurm job {self.record.id} stands: {what}")
        seconds = now - self._unknown_since
        if self._unknown_looks < UNKNOWN_LOOKS or seconds < self.plan.unknown_timeout_seconds:
            return None
        reason = (
            f"nobody could tell its state for {seconds:.0f} s ({self._unknown_looks} looks). Last: {what}"
        )
        return Outcome(self.plan.record, JobState.UNKNOWN, reason)

    def _past_a_limit(self, resolution: Resolution, *, now: float) -> Outcome | None:
        limit, seconds, since = "queue", self.plan.queue_timeout_seconds, self.record.submitted_at
        if resolution.state is JobState.RUNNING:
            limit, seconds = "run", self.plan.run_timeout_seconds
            since = resolution.started_at or ""
        elif resolution.state is JobState.REQUEUED:
            return None
        if seconds is None or not since or now - _seconds(since) < seconds:
            return None
        what = "waited in the queue" if limit == "queue" else "was running"
        reason = f"it {what} for {now - _seconds(since):.0f} s, the limit of this task is {seconds:.0f} s"
        return replace(self._outcome(resolution), reason=reason, limit=limit)

    def _outcome(self, resolution: Resolution) -> Outcome:
        record = replace(
            self.record,
            state=str(resolution.state),
            nodes=resolution.node_count if resolution.started_at else 0,
            started_at=resolution.started_at,
            ended_at=resolution.ended_at,
        )
        return Outcome(
            record.to_xcom(),
            str(resolution.state),
            resolution.reason,
            exit_code=resolution.exit_code,
            nodes=resolution.nodes,
        )

    def _tell(self, resolution: Resolution) -> None:
        """Log the state when it changes."""
        text = f"{resolution.state}: {resolution.reason}"
        if resolution.nodes:
            text += f", on {resolution.nodes}"
        if resolution.restarts:
            text += f", started again {resolution.restarts} times"
        if text != self._seen:
            self._seen = text
            self._log(f"Slurm job {self.record.id} is {text}")


def job_in_words(record: JobRecord) -> str:
    """Name a job for people."""
    return f"Slurm job {record.id} on {record.cluster} ({record.name}, attempt {record.attempt})"


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
