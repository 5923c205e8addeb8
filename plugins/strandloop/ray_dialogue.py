"""Conversations with Ray's Jobs REST API, written once for blocking and for asynchronous callers.

A dialogue is a generator without any input or output of its own. It yields what it wants (`Ask` a
question, `Pause`, `Say` lines to the task log) and receives the `Answer` to each question;
:class:`strandloop.hooks.ray_jobs.RayJobHook` plays it with a blocking or an asynchronous client.

Evidence: only Ray's own, readable answer says anything about a job. Silence, errors of the server and
answers that are not Ray's are repeated with growing pauses, and end as StateUnknown.

Endpoints: ray 2.60, ``ray/dashboard/modules/job/job_head.py`` and ``ray/dashboard/modules/node``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from time import time as now
from typing import Any, Literal, TypeVar

from strandloop.code_archive import CodeArchive
from strandloop.errors import RemoteJobError, StateUnknown, SubmitRefused
from strandloop.job_record import iso_utc
from strandloop.ray_job import LogTail, Outcome, RayJob, submission_id_of

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
STOP_WAIT = 60.0
# Small questions at the end of a job that ended: not worth losing its result over.
SIDE_PATIENCE = 20.0

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One HTTP request, relative to the dashboard's address."""

    method: Literal["GET", "POST", "PUT"]
    path: str
    json: dict[str, Any] | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """What came back; ``status`` is None where nothing did, and ``text`` then says why."""

    status: int | None
    text: str

    def __str__(self) -> str:
        said = self.text.strip()[:500]
        hint = "; check the token or the login of the connection" if self.status in (401, 403) else ""
        return said if self.status is None else f"HTTP {self.status}: {said}{hint}"


@dataclass(frozen=True)
class Pause:
    """Wait, in seconds."""

    seconds: float


@dataclass(frozen=True)
class Say:
    """Lines for the task log."""

    lines: tuple[str, ...]


Dialogue = Generator[Ask | Pause | Say, Any, T]


def find(submission_id: str, *, patience: float) -> Dialogue[RayJob | None]:
    """Ask how a job stands; None is Ray's proven "I do not know it".

    :raises StateUnknown: if Ray did not answer for ``patience`` seconds.
    """

    def read(answer: Answer) -> RayJob | None:
        if answer.status == 404 and submission_id in answer.text:
            return None
        return RayJob.from_answer(_json_of(answer))

    job = yield from _insist(Ask("GET", f"/api/jobs/{submission_id}"), read, patience=patience)
    if job is None:
        # A proxy in front of a dead dashboard can say 404 too; only Ray tells its version.
        yield from _insist(Ask("GET", "/api/version"), _ray_version, patience=patience)
    return job


def look_up(identity: str, *, submitted: int, patience: float) -> Dialogue[tuple[int, RayJob | None]]:
    """Find the attempt of an identity that counts: the first that is alive or succeeded.

    Without one, return the number of the next attempt and None. Attempts up to ``submitted`` are known to
    have been taken, so where Ray does not know them any more they are lost, and their number is used up.
    """
    attempt = 1
    while True:
        job = yield from find(submission_id_of(identity, attempt=attempt), patience=patience)
        if job is not None and (job.alive or job.succeeded):
            return attempt, job
        if job is None and attempt > submitted:
            return attempt, None
        attempt += 1


def upload(archive: CodeArchive, *, patience: float) -> Dialogue[bool]:
    """Store an archive in the cluster unless it is there; return whether it was sent.

    The question alone keeps Ray from dropping the archive for the next ten minutes.
    """
    path = f"/api/packages/gcs/{archive.name}"

    def exists(answer: Answer) -> bool:
        if answer.status in (200, 404):
            return answer.status == 200
        raise ValueError(answer)

    if (yield from _insist(Ask("GET", path), exists, patience=patience)):
        return False
    if not (yield from _insist(Ask("PUT", path, content=archive.content), exists, patience=patience)):
        raise SubmitRefused(f"Ray has no place for code archives at {path}; is the Jobs API switched on?")
    return True


def submit(body: dict[str, Any], *, patience: float) -> Dialogue[RayJob]:
    """Submit a job under its own submission id and return it as Ray knows it.

    What counts is not the answer to the submission but whether the job stands there afterwards: an answer
    may be lost, and "already exists" means that this or another worker was first.

    :raises SubmitRefused: if Ray says no.
    :raises StateUnknown: if Ray does not answer.
    """
    submission_id = body["submission_id"]
    for pause in _pauses(patience):
        answer = yield Ask("POST", "/api/jobs/", json=body)
        if _refuses(answer):
            raise SubmitRefused(f"Ray refused job {submission_id}: {_reason(answer)}")
        job = yield from find(submission_id, patience=patience)
        if job is not None:
            return job
        yield Pause(pause)
    raise SubmitRefused(f"Ray did not take job {submission_id} within {patience:.0f} s: {answer}")


def stop(submission_id: str, *, patience: float, wait: float = STOP_WAIT) -> Dialogue[RayJob | None]:
    """Stop a job and wait until it is gone; return how it stands then (None: Ray does not know it).

    Ray sends SIGTERM to the driver, and SIGKILL three seconds later. A job that is still alive after
    ``wait`` seconds is returned as it is.
    """
    give_up = now() + wait
    while True:
        # The answer proves nothing, and a job that is still being set up may not listen yet: ask again.
        yield Ask("POST", f"/api/jobs/{submission_id}/stop")
        job = yield from find(submission_id, patience=patience)
        if job is None or not job.alive or now() > give_up:
            return job
        yield Pause(FIRST_PAUSE)


def watch(
    submission_id: str,
    *,
    poll: float,
    patience: float,
    deadline: float | None = None,
    stop_at_deadline: bool = True,
) -> Dialogue[Outcome]:
    """Follow a job and its log to the end, and return what was seen; raises nothing about the job.

    :param poll: seconds between two looks.
    :param patience: seconds without any evidence until the state counts as unknown.
    :param deadline: seconds since the epoch at which the job is stopped.
    :param stop_at_deadline: otherwise the job is left alone, and only the watching ends.
    """
    tail = LogTail()
    try:
        return (yield from _watch(submission_id, tail, poll, patience, deadline, stop_at_deadline))
    except RemoteJobError as error:
        return Outcome("unknown", submission_id, said=str(error), last_lines=tail.last_lines)


def _watch(
    submission_id: str,
    tail: LogTail,
    poll: float,
    patience: float,
    deadline: float | None,
    stop_at_deadline: bool,
) -> Dialogue[Outcome]:
    absent = False
    while True:
        job = yield from find(submission_id, patience=patience)
        overdue = job is not None and job.alive and deadline is not None and now() >= deadline
        if overdue and stop_at_deadline:
            job = yield from stop(submission_id, patience=patience)
        # The log after the state: behind a terminal state it is complete.
        ended = job is not None and not job.alive
        yield from _show_log(submission_id, tail, final=ended or overdue)
        if job is not None and ended and (job.succeeded or not overdue):
            nodes = yield from _node_count()
            return Outcome("ended", submission_id, job=job, nodes=nodes, last_lines=tail.last_lines)
        if job is not None and overdue:
            said = _deadline_said(job, deadline or 0.0, stop_at_deadline)
            return Outcome("deadline", submission_id, job=job, said=said, last_lines=tail.last_lines)
        if job is None and absent:  # seen twice: one odd answer loses no job
            said = "Ray answers and does not know it: its head was restarted, or somebody deleted the job"
            return Outcome("lost", submission_id, said=said, last_lines=tail.last_lines)
        absent = job is None
        yield Pause(poll if deadline is None else min(poll, max(FIRST_PAUSE, deadline - now())))


def _deadline_said(job: RayJob, deadline: float, stop_at_deadline: bool) -> str:
    limit = iso_utc(deadline)
    if not stop_at_deadline:
        return f"still {job.status} at {limit}, the end of waiting; it was left alone"
    if job.alive:
        return f"reached its time limit at {limit}, was told to stop, and is still {job.status}"
    return f"reached its time limit at {limit} and was stopped"


def _show_log(submission_id: str, tail: LogTail, *, final: bool) -> Dialogue[None]:
    def read(answer: Answer) -> str:
        return str(_json_of(answer)["logs"])

    question = Ask("GET", f"/api/jobs/{submission_id}/logs")
    try:
        text = yield from _insist(question, read, patience=SIDE_PATIENCE if final else 0.0)
    except StateUnknown as error:
        # Logs are no evidence: a log that cannot be read now is read at the next look.
        if final:
            yield Say((f"(the end of the job's log could not be read: {error})",))
        return
    if lines := tail.feed(text, final=final):
        yield Say(tuple(lines))


def _node_count() -> Dialogue[int]:
    def read(answer: Answer) -> int:
        nodes = _json_of(answer)["data"]["summary"]
        return sum(node["raylet"]["state"] == "ALIVE" for node in nodes)

    try:
        return (yield from _insist(Ask("GET", "/nodes?view=summary"), read, patience=SIDE_PATIENCE))
    except StateUnknown as error:
        yield Say((f"(nodes are not counted, so the job's cost is not known: {error})",))
        return 0


def _insist(question: Ask, read: Callable[[Answer], T], *, patience: float) -> Dialogue[T]:
    """Repeat an idempotent question until ``read`` can make sense of the answer."""
    asked = 0
    for pause in _pauses(patience):
        answer = yield question
        asked += 1
        try:
            return read(answer)
        except (ValueError, LookupError, TypeError):
            yield Pause(pause)
    raise StateUnknown(
        f"asked {asked} times for {question.path} within {patience:.0f} s; the last answer was {answer}"
    )


def _pauses(patience: float) -> Iterator[float]:
    """Growing pauses, at least one, until ``patience`` seconds have passed; jittered, as many wait at once."""
    give_up = now() + patience
    pause = FIRST_PAUSE
    while True:
        left = give_up - now()
        yield min(pause * random.uniform(0.7, 1.3), max(left, 0.0))
        if left <= 0:
            return
        pause = min(pause * 2, LONGEST_PAUSE)


def _json_of(answer: Answer) -> dict[str, Any]:
    if answer.status != 200:
        raise ValueError(answer)
    value = json.loads(answer.text)
    if not isinstance(value, dict):
        raise ValueError(answer)
    return value


def _ray_version(answer: Answer) -> str:
    return str(_json_of(answer)["ray_version"])


def _refuses(answer: Answer) -> bool:
    """Whether Ray said no. Its head wraps the answer of its job agent: a 400 inside a 500."""
    if answer.status is None or answer.status == 200 or "already exists" in answer.text:
        return False
    client_error = 400 <= answer.status < 500 and answer.status not in (408, 429)
    return client_error or "status code 400" in answer.text


def _reason(answer: Answer) -> str:
    # The text may be a Python traceback; its last line is the reason.
    lines = [line for line in answer.text.splitlines() if line.strip(" .")]
    return str(Answer(answer.status, lines[-1] if lines else "no reason given"))
