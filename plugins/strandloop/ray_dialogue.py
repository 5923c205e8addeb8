"""Conversations with Ray's Jobs REST API, written once for blocking and for asynchronous callers.

A dialogue is a generator without any input or output of its own. It yields what it wants (`Ask` a
question, `Fetch` a long text, `Pause`, `Say` lines to the task log, `Keep` a bookmark) and receives the
`Answer` to each question; :class:`strandloop.hooks.ray_jobs.RayJobHook` plays it with a blocking or an
asynchronous client. :mod:`strandloop.ray_watch` follows a job to its end.

Evidence: only Ray's own, readable answer says anything about a job. Silence, errors of the server and
answers that are not Ray's are repeated with growing pauses, and end as StateUnknown.

Endpoints: ray 2.60, ``ray/dashboard/modules/job/job_head.py`` and ``ray/dashboard/modules/state``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from time import time as now
from typing import Any, Literal, TypeVar

from strandloop.code_archive import CodeArchive
from strandloop.errors import JobLost, StateUnknown, SubmitRefused
from strandloop.ray_bookmark import Bookmark
from strandloop.ray_job import Attempts, RayJob, submission_id_of

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
# A slow dashboard is waited for; one that answers after half a minute still tells the truth.
ANSWER_WAIT = 60.0
STOP_WAIT = 60.0
# Ray cannot stop a job that waits for resources: it notes the stop, and obeys when the job would start.
PENDING_STOP_WAIT = 10.0
# A node that lost its head gives up after 60 s (gcs_rpc_server_reconnect_timeout_s), and its drivers with it.
ORPHAN_SECONDS = 65.0

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One HTTP request, relative to the dashboard's address.

    :param wait: seconds for each part of the answer.
    """

    method: Literal["GET", "POST", "PUT"]
    path: str
    json: dict[str, Any] | None = None
    content: bytes | None = None
    wait: float = ANSWER_WAIT


@dataclass(frozen=True)
class Fetch:
    """A GET of a plain text of any size; ``take`` is given its bytes in order, and returns lines to log.

    The answer has status 200 and no text once all of it was taken; any other answer is not given to it.
    """

    path: str
    take: Callable[[bytes], Sequence[str]]


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


@dataclass(frozen=True)
class Keep:
    """A bookmark to keep, if there is a place for it."""

    bookmark: Bookmark


Dialogue = Generator[Ask | Fetch | Pause | Say | Keep, Any, T]


def find(submission_id: str, *, patience: float, wait: float = ANSWER_WAIT) -> Dialogue[RayJob | None]:
    """Ask how a job stands; None is Ray's proven "I do not know it".

    :raises StateUnknown: if Ray did not answer for ``patience`` seconds.
    """

    def read(answer: Answer) -> RayJob | None:
        if answer.status == 404 and f"Job {submission_id} does not exist" in answer.text:
            return None
        job = RayJob.from_answer(json_of(answer))
        if job.submission_id != submission_id:
            raise ValueError(answer)  # the answer to another question, out of some cache
        return job

    job = yield from insist(Ask("GET", f"/api/jobs/{submission_id}", wait=wait), read, patience=patience)
    if job is None:
        # A proxy in front of a dead dashboard can say 404 too; only Ray tells its version.
        yield from insist(Ask("GET", "/api/version", wait=wait), _ray_version, patience=patience)
    return job


def find_attempts(identity: str, *, at_least: int, patience: float) -> Dialogue[Attempts]:
    """Find the attempts of an identity that Ray knows.

    :param at_least: numbers up to this one are asked for even where Ray does not know one before it: a
        head that was restarted in between knows only the later ones.
    """
    jobs: list[RayJob | None] = []
    while True:
        attempt = len(jobs) + 1
        job = yield from find(submission_id_of(identity, attempt=attempt), patience=patience)
        if job is None and attempt > at_least:
            return Attempts(tuple(jobs))
        jobs.append(job)


def upload(archive: CodeArchive, *, patience: float) -> Dialogue[bool]:
    """Store an archive in the cluster unless it is there; return whether it was sent.

    The question alone keeps Ray from dropping the archive for the next ten minutes.

    :raises StateUnknown: if Ray did not take it for ``patience`` seconds.
    """
    path = f"/api/packages/gcs/{archive.name}"

    def exists(answer: Answer) -> bool:
        if answer.status == 200 or (answer.status == 404 and "does not exist" in answer.text):
            return answer.status == 200
        raise ValueError(answer)

    def stored(answer: Answer) -> bool:
        if answer.status == 200:
            return True
        raise ValueError(answer)

    if (yield from insist(Ask("GET", path), exists, patience=patience)):
        return False
    return (yield from insist(Ask("PUT", path, content=archive.content), stored, patience=patience))


def submit(body: dict[str, Any], *, patience: float) -> Dialogue[RayJob]:
    """Submit a job under its own submission id and return it as Ray knows it.

    What counts is not the answer to the submission but whether the job stands there afterwards: an answer
    may be lost, and "already exists" means that this or another worker was first.

    :raises SubmitRefused: if Ray says no.
    :raises JobLost: if Ray took the job and does not know it any more.
    :raises StateUnknown: if Ray does not answer; it may have taken the job.
    """
    submission_id = body["submission_id"]
    for pause in pauses(patience):
        answer = yield Ask("POST", "/api/jobs/", json=body)
        if _refuses(answer):
            raise SubmitRefused(f"Ray refused job {submission_id}: {_reason(answer)}")
        job = yield from find(submission_id, patience=patience)
        if job is not None:
            return job
        if answer.status == 200 and submission_id in answer.text:
            # To submit it again here could make two of it: drivers outlive their head for a while.
            raise JobLost(
                f"Ray took job {submission_id} and does not know it: its head was restarted just now"
            )
        yield Pause(pause)
    if answer.status is None:
        raise StateUnknown(
            f"Ray did not say within {patience:.0f} s whether it took job {submission_id}: {answer}"
        )
    raise SubmitRefused(f"Ray did not take job {submission_id} within {patience:.0f} s: {answer}")


def stop(submission_id: str, *, patience: float, wait: float = STOP_WAIT) -> Dialogue[RayJob | None]:
    """Stop a job and wait until it is gone; return how it stands then (None: Ray does not know it).

    Ray sends SIGTERM to the driver, and SIGKILL three seconds later. A job that is still alive after
    ``wait`` seconds is returned as it is. One that waits for resources is returned PENDING after
    ``PENDING_STOP_WAIT``: Ray has noted the stop, and ends it before :data:`~strandloop.ray_submission.GUARD`
    lets it do anything.
    """
    began = now()
    while True:
        # The answer proves nothing, and a job that is still being set up may not listen yet: ask again.
        half = max(FIRST_PAUSE, min(ANSWER_WAIT, (began + wait - now()) / 2))
        told = yield Ask("POST", f"/api/jobs/{submission_id}/stop", wait=half)
        job = yield from find(submission_id, patience=patience, wait=half)
        if job is None or not job.alive:
            return job
        noted = job.status == "PENDING" and told.status == 200 and '"stopped": true' in told.text
        if now() - began > min(wait, PENDING_STOP_WAIT if noted else wait):
            return job
        yield Pause(FIRST_PAUSE)


def outlive_orphans(*, patience: float) -> Dialogue[None]:
    """Wait until no driver of an earlier head of this cluster can be alive.

    A head that was restarted without its memory knows none of its jobs, while their drivers may go on for a
    minute. So the head must be that old before anything may be submitted in place of such a job.
    """

    def read(answer: Answer) -> float:
        (head,) = json_of(answer)["data"]["result"]["result"]
        return float(head["start_time_ms"]) / 1000

    question = Ask("GET", nodes_path("is_head_node", "True") + "&detail=1")
    try:
        head_since = yield from insist(question, read, patience=min(patience, LONGEST_PAUSE))
    except StateUnknown as error:
        yield Say((f"(the age of Ray's head is not known: {error})",))
        head_since = now()
    young = head_since + ORPHAN_SECONDS - now()
    if young > 0:
        young = min(young, ORPHAN_SECONDS)  # the head's clock may be fast
        yield Say(
            (f"Ray's head is new; waiting {young:.0f} s until no driver of an earlier one can be alive",)
        )
        yield Pause(young)


def nodes_path(key: str, value: str) -> str:
    """Return the question for the nodes with one property; it names at most one and counts all."""
    return f"/api/v0/nodes?limit=1&filter_keys={key}&filter_predicates=%3D&filter_values={value}"


def insist(question: Ask, read: Callable[[Answer], T], *, patience: float) -> Dialogue[T]:
    """Repeat an idempotent question until ``read`` can make sense of the answer.

    :raises StateUnknown: if it could not for ``patience`` seconds.
    """
    asked = 0
    for pause in pauses(patience):
        answer = yield question
        asked += 1
        try:
            return read(answer)
        except (ValueError, LookupError, TypeError, AttributeError):
            yield Pause(pause)
    raise StateUnknown(
        f"asked {asked} times for {question.path} within {patience:.0f} s; the last answer was {answer}"
    )


def pauses(patience: float) -> Iterator[float]:
    """Growing pauses, at least one, until ``patience`` seconds have passed; jittered, as many wait at once."""
    give_up = now() + patience
    pause = FIRST_PAUSE
    while True:
        left = give_up - now()
        yield min(pause * random.uniform(0.7, 1.3), max(left, 0.0))
        if left <= 0:
            return
        pause = min(pause * 2, LONGEST_PAUSE)


def json_of(answer: Answer) -> dict[str, Any]:
    """Return the JSON object that an answer is.

    :raises ValueError: if it is anything else.
    """
    if answer.status != 200:
        raise ValueError(answer)
    value = json.loads(answer.text)
    if not isinstance(value, dict):
        raise ValueError(answer)
    return value


def _ray_version(answer: Answer) -> str:
    return str(json_of(answer)["ray_version"])


def _refuses(answer: Answer) -> bool:
    """Whether Ray said no. Its head wraps the answer of its job agent: a 400 inside a 500."""
    if answer.status is None or answer.status == 200 or "already exists" in answer.text:
        return False
    if answer.text.lstrip().startswith("<"):
        return False  # a page for people: some proxy's, not Ray's
    client_error = 400 <= answer.status < 500 and answer.status not in (408, 429)
    return client_error or "status code 400" in answer.text


def _reason(answer: Answer) -> str:
    # The text may be a Python traceback; its last line is the reason.
    lines = [line for line in answer.text.splitlines() if line.strip(" .")]
    return str(Answer(answer.status, lines[-1] if lines else "no reason given"))
