"""Following a Ray job, its log and its limits to its end."""

from __future__ import annotations

from dataclasses import replace
from time import time as now

from strandloop.errors import RemoteJobError, StateUnknown
from strandloop.ray_bookmark import Bookmark
from strandloop.ray_dialogue import (
    FIRST_PAUSE,
    Answer,
    Ask,
    Dialogue,
    Fetch,
    Keep,
    Pause,
    Say,
    find,
    insist,
    json_of,
    nodes_path,
    pauses,
    stop,
)
from strandloop.ray_job import Outcome, RayJob
from strandloop.ray_limits import Limits, passed_in_words
from strandloop.ray_log import BYTES_PER_SECOND, LogTail, log_path

# Small questions at the end of a job that ended: not worth losing its result over.
SIDE_PATIENCE = 20.0
# Ray's name of the actor whose child the driver is.
SUPERVISOR = "_ray_internal_job_actor_"
KEEP_SECONDS = 2.0
# Lines travel to their file on another way than the bookmark: they get a start.
LINES_FIRST = 0.2
# A log that could not be read so often in a row is worth a word.
MISSES = 5


def watch(
    submission_id: str,
    *,
    poll: float,
    patience: float,
    limits: Limits | None = None,
    bookmark: Bookmark | None = None,
) -> Dialogue[Outcome]:
    """Follow a job and its log to the end, and return what was seen; raises nothing about the job.

    :param poll: seconds between two looks.
    :param patience: seconds without any evidence until the state counts as unknown.
    :param limits: what the job may take.
    :param bookmark: of one who followed it before; that of another submission is ignored.
    """
    follower = _Follower(submission_id, poll, patience, limits or Limits(), bookmark)
    try:
        outcome = yield from follower.follow()
    except RemoteJobError as error:
        outcome = Outcome("unknown", submission_id, said=str(error))
    return replace(outcome, last_lines=follower.tail.last_lines, bookmark=follower.bookmark)


class _Follower:
    def __init__(
        self, submission_id: str, poll: float, patience: float, limits: Limits, bookmark: Bookmark | None
    ) -> None:
        self.submission_id = submission_id
        self.poll = poll
        self.patience = patience
        self.limits = limits
        self.bookmark = self.kept = bookmark
        self.tail = LogTail(bookmark.log_bytes if bookmark else 0)
        self.next_log_at = self.next_keep_at = 0.0
        self.misses = 0

    def follow(self) -> Dialogue[Outcome]:
        absent = False
        while True:
            job = yield from find(self.submission_id, patience=self.patience)
            if job is None:
                if absent:  # seen twice: one odd answer loses no job
                    said = "Ray answers and does not know it: its head was restarted, or somebody deleted the job"
                    return Outcome("lost", self.submission_id, said=said)
                absent = True
                yield Pause(self.poll)
                continue
            absent = False
            yield from self.recognise(job)
            when, limit = self.next_limit(job)
            overdue = job.alive and now() >= when
            if overdue and self.limits.stop:
                stopped = yield from stop(self.submission_id, patience=self.patience)
                if stopped is None:
                    continue
                job = stopped
            # The log after the state: behind a terminal state it is complete.
            yield from self.show_log(job, final=overdue or not job.alive)
            if not job.alive and (job.succeeded or not overdue):
                nodes = yield from _node_count()
                return Outcome("ended", self.submission_id, job=job, nodes=nodes)
            if overdue:
                said = passed_in_words(limit, when, job, stopped=self.limits.stop)
                return Outcome("deadline", self.submission_id, job=job, said=said)
            yield Pause(min(self.poll, max(FIRST_PAUSE, self.next_limit(job)[0] - now())))

    def next_limit(self, job: RayJob) -> tuple[float, str]:
        return self.limits.next(job, running_since=self.bookmark.running_since if self.bookmark else None)

    def recognise(self, job: RayJob) -> Dialogue[None]:
        """Take the bookmark if it is this job's, and note when the job began to run."""
        start = job.bookmark
        if self.bookmark is None or not self.bookmark.same_job(start):
            self.bookmark, self.tail = start, LogTail()
        if job.status != "PENDING" and self.bookmark.running_since is None:
            since = yield from _running_since(self.submission_id)
            if since is None and job.alive:
                since = now()  # Ray does not tell: it runs since it was first seen to
            self.bookmark = replace(self.bookmark, running_since=since)

    def show_log(self, job: RayJob, *, final: bool) -> Dialogue[None]:
        """Pass on what is new in the log, and keep the bookmark behind it."""
        if job.driver_node_id and (final or now() >= self.next_log_at):
            yield from self.read_log(job, final=final)
        if self.bookmark is not None:
            self.bookmark = replace(self.bookmark, log_bytes=self.tail.offset)
        due = final or now() >= self.next_keep_at
        if self.bookmark is not None and self.bookmark != self.kept and due:
            yield Pause(LINES_FIRST)
            yield Keep(self.bookmark)
            self.kept, self.next_keep_at = self.bookmark, now() + KEEP_SECONDS

    def read_log(self, job: RayJob, *, final: bool) -> Dialogue[None]:
        path = log_path(self.submission_id, node_id=job.driver_node_id)
        for pause in pauses(SIDE_PATIENCE) if final else [0.0]:
            self.tail.begin()
            answer: Answer = yield Fetch(path, self.tail.take)
            self.next_log_at = now() + self.tail.position / BYTES_PER_SECOND
            if answer.status == 200:
                self.misses = 0
                break
            yield Pause(pause)
        else:
            # Logs are no evidence: a log that cannot be read now is read at the next look.
            self.misses += 1
            if final or self.misses == MISSES:
                yield Say((f"(the job's log could not be read: {answer})",))
        if final and (rest := self.tail.finish()):
            yield Say(tuple(rest))


def _running_since(submission_id: str) -> Dialogue[float | None]:
    """Return when the driver was started, in seconds since the epoch; None if Ray does not tell.

    The Jobs API does not. The actor that starts the driver is up just before; Ray tells about it while it is
    alive, and for some time after.
    """
    query = f"filter_keys=name&filter_predicates=%3D&filter_values={SUPERVISOR}{submission_id}"
    actors = f"/api/v0/actors?{query}"

    def actor_id(answer: Answer) -> str:
        return str(json_of(answer)["data"]["result"]["result"][0]["actor_id"])

    def start(answer: Answer) -> float:
        started_ms = json_of(answer)["data"]["detail"]["startTime"]
        if not started_ms:
            raise ValueError(answer)
        return float(started_ms) / 1000

    try:
        name = yield from insist(Ask("GET", actors), actor_id, patience=0.0)
        return (yield from insist(Ask("GET", f"/logical/actors/{name}"), start, patience=0.0))
    except StateUnknown:
        return None


def _node_count() -> Dialogue[int]:
    def read(answer: Answer) -> int:
        return int(json_of(answer)["data"]["result"]["num_filtered"])

    try:
        return (yield from insist(Ask("GET", nodes_path("state", "ALIVE")), read, patience=SIDE_PATIENCE))
    except StateUnknown as error:
        yield Say((f"(nodes are not counted, so the job's cost is not known: {error})",))
        return 0
