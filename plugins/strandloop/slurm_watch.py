"""Waiting for one Slurm job, without doing any input or output itself.

A caller runs :meth:`SlurmWatch.command` on the login node, hands the answer to
:meth:`SlurmWatch.observe`, sleeps for :meth:`SlurmWatch.pause` seconds, and repeats that until an
:class:`Outcome` comes out. The synchronous operator and the trigger are two such callers.
"""

from __future__ import annotations

import posixpath
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from strandloop.job_progress import ProgressPace
from strandloop.job_record import JobRecord
from strandloop.slurm_answers import Poll, other_cluster, parse_poll
from strandloop.slurm_array import JobArray
from strandloop.slurm_commands import (
    ELEMENT_LOG,
    LOG,
    READ_MARK,
    Command,
    conclude,
    poll,
    poll_array,
    write_file,
)
from strandloop.slurm_elements import combine, described, resolve_elements
from strandloop.slurm_log import LogTail
from strandloop.slurm_outcome import Outcome
from strandloop.slurm_state import JobState, Resolution, resolve

#: Bytes of log per poll, small enough not to hold an event loop up; a longer log is read without a pause.
LOG_PIECE = 64 * 1024

#: So many looks in a row must find nothing out, over the time below, before the job counts as UNKNOWN.
UNKNOWN_LOOKS = 3

#: Elements of a failed array whose logs its error shows.
SHOWN_LOGS = 3


@dataclass(frozen=True)
class WatchPlan:
    """What is waited for, and how long. Plain JSON values: a trigger carries it between processes.

    :param record: the job's reference, as :meth:`JobRecord.to_xcom` gives it.
    :param reader: name of who reads the log, of letters, digits and ``-``.
    :param queue_timeout_seconds: longest wait in the queue: from submission to the first start, and again
        whenever Slurm has put the job back; ``None`` for no limit. Of an array: until an element starts.
    :param run_timeout_seconds: longest run, counted from the job's last start as Slurm reports it. Of an
        array: of each element, from its own start.
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


class SlurmWatch:
    """State of one wait: what was seen last, how much of the log was passed on, what is unknown.

    The log of a single job is passed on whole; of an array, whose elements write side by side, only the
    changes of their states are told.

    :param log: receives the job's log lines and changes of its state.
    """

    def __init__(self, plan: WatchPlan, *, log: Callable[[str], None]) -> None:
        self.plan = plan
        self.record = JobRecord.from_xcom(plan.record)
        if self.record.job_dir is None:
            raise ValueError(f"not a reference to a Slurm job: it has no job_dir: {plan.record!r}")
        self._array = JobArray.parse(self.record.array) if self.record.array else None
        self._log = log
        self._tail: LogTail | None = None
        self._offset_told = 0
        self._seen = ""
        self._seen_elements: dict[int, JobState] = {}
        self._verdicts: dict[int, str] = {}
        self._verdicts_sent: set[int] = set()
        self._progress = ProgressPace()
        self._more = False
        self._cluster_known = False
        self._unknown_since: float | None = None
        self._unknown_looks = 0

    def command(self) -> Command:
        """Return the next question to the login node."""
        job_dir, job_id, reader = str(self.record.job_dir), self.record.id, self.plan.reader
        cluster, doubt = not self._cluster_known, self._unknown_looks > 0
        if self._array is not None:
            verdicts = "".join(self._verdicts.values())
            self._verdicts_sent |= set(self._verdicts)
            return poll_array(
                job_dir, job_id=job_id, reader=reader, verdicts=verdicts, cluster=cluster, doubt=doubt
            )
        offset = self._tail.offset if self._tail else None
        return poll(
            job_dir,
            job_id=job_id,
            reader=reader,
            offset=offset,
            limit=LOG_PIECE,
            cluster=cluster,
            doubt=doubt,
        )

    @property
    def behind(self) -> bool:
        """There is more to read, or the cluster was not yet told what was read and seen."""
        if self._unknown_looks:
            return False
        return self._more or (self._tail is not None and self._tail.offset != self._offset_told)

    def bookmark(self) -> Command | None:
        """Return what tells the cluster how far the log was passed on; None where it knows.

        The next question tells it too; a reader that is killed before that has its successor show a few
        lines twice.
        """
        if self._tail is None or self._tail.offset == self._offset_told:
            return None
        self._offset_told = self._tail.offset
        path = posixpath.join(str(self.record.job_dir), READ_MARK.format(reader=self.plan.reader))
        return write_file(path, str(self._tail.offset).encode())

    def observe(self, answer: bytes, *, now: float) -> Outcome | None:
        """Take the answer; return the outcome once the wait is over.

        :param now: seconds since the epoch.
        """
        try:
            poll = parse_poll(answer, job_id=self.record.id, name=self.record.name)
        except ValueError as error:
            return self.unanswered(str(error), now=now)
        if wrong := other_cluster(self.record.cluster, poll.cluster):
            return self._unknown(wrong, now=now)
        self._cluster_known = self._cluster_known or poll.cluster is not None
        self._more = False
        if poll.files_read and self._array is None:
            self._read_log(poll)
        if line := self._progress.line(poll.progress, now=now):
            self._log(line)
        resolution, parts = self._resolve(poll)
        if not resolution.state.alive and not poll.files_read:
            words = f"{resolution.state}: {resolution.reason}, and the shared file system does not answer"
            return self._unknown(words, now=now)
        if resolution.state is JobState.UNKNOWN:
            return self._unknown(resolution.reason, now=now)
        self._unknown_since, self._unknown_looks = None, 0
        self._tell(resolution)
        if resolution.stuck:
            reason = f"Slurm took it and will never start it, for {resolution.stuck} ({resolution.reason})"
            return replace(self._outcome(resolution), reason=reason, limit="never")
        if resolution.state.alive:
            return self._past_a_limit(resolution, parts, now=now)
        if self._more:
            return None
        for line in self._tail.finish() if self._tail else ():
            self._log(line)
        return self._outcome(resolution)

    def _read_log(self, poll: Poll) -> None:
        if self._tail is None or self._tail.offset != poll.offset:
            if self._tail is not None:
                self._log("the log of the job was cut or replaced; it is read from its start again")
            self._tail = LogTail(poll.offset)
        self._offset_told = poll.offset
        for line in self._tail.feed(poll.log):
            self._log(line)
        self._more = len(poll.log) == LOG_PIECE

    def _resolve(self, poll: Poll) -> tuple[Resolution, Mapping[int, Resolution]]:
        """Resolve the job; of an array its elements as well, noting which verdicts must be kept."""
        if self._array is None:
            return resolve(poll.evidence), {}
        elements = resolve_elements(poll.evidence, self._array)
        if poll.files_read:
            self._verdicts = {
                index: element.to_verdict(self.record.id, index=index)
                for index, element in elements.items()
                if element.fleeting and index not in self._verdicts_sent
            }
            self._more = bool(self._verdicts)
        self._tell_elements(elements)
        return combine(elements), elements

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
        logs = [ELEMENT_LOG.format(index=index) for index in outcome.unfinished[:SHOWN_LOGS]]
        if self._array is None:
            logs = [LOG]
        return conclude(str(self.record.job_dir), verdict=verdict.to_verdict(self.record.id), logs=logs)

    def pause(self) -> float:
        """Return seconds to the next question; jittered, so that many waits do not ask at once."""
        if self._more and not self._unknown_looks:
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

    def _past_a_limit(
        self, resolution: Resolution, elements: Mapping[int, Resolution], *, now: float
    ) -> Outcome | None:
        """Compare how long the job waits, or runs, with the limits; of an array, its longest running element."""
        if resolution.state is JobState.RUNNING:
            limit, seconds = "run", self.plan.run_timeout_seconds
            running = [part for part in elements.values() or [resolution] if part.state is JobState.RUNNING]
            since = min((part.started_at for part in running if part.started_at), default=None)
        else:
            limit, seconds = "queue", self.plan.queue_timeout_seconds
            requeued = resolution.state is JobState.REQUEUED
            since = resolution.queued_at if requeued else self.record.submitted_at
        if seconds is None or not since or now - _seconds(since) < seconds:
            return None
        who = "one of its elements" if elements and limit == "run" else "it"
        what = "waited in the queue" if limit == "queue" else "was running"
        reason = f"{who} {what} for {now - _seconds(since):.0f} s, the limit of this task is {seconds:.0f} s"
        return replace(self._outcome(resolution), reason=reason, limit=limit)

    def _outcome(self, resolution: Resolution) -> Outcome:
        return Outcome(
            resolution.applied_to(self.record).to_xcom(),
            str(resolution.state),
            resolution.reason,
            exit_code=resolution.exit_code,
            nodes=resolution.nodes,
            unfinished=resolution.unfinished,
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

    def _tell_elements(self, elements: Mapping[int, Resolution]) -> None:
        """Name the elements that have newly failed, were put back, or are known no more."""
        calm = (JobState.PENDING, JobState.RUNNING, JobState.SUCCEEDED)
        news = {
            index: element
            for index, element in elements.items()
            if element.state not in calm and self._seen_elements.get(index) is not element.state
        }
        self._seen_elements = {index: element.state for index, element in elements.items()}
        if news:
            self._log(f"Slurm job array {self.record.id}, elements {described(news)}")


def job_in_words(record: JobRecord) -> str:
    """Name a job for people."""
    array = f", elements {record.array}" if record.array else ""
    return f"Slurm job {record.id} on {record.cluster} ({record.name}, attempt {record.attempt}{array})"


def _seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()
