"""Deciding what a task must do about its job: submit it, attach to it, take its result, or wait."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from strandloop.errors import InvalidJob
from strandloop.slurm_answers import Attempt, Lookup, other_cluster
from strandloop.slurm_array import JobArray
from strandloop.slurm_state import JobState, Resolution


@dataclass(frozen=True)
class Submission:
    """One job as a task wants it.

    :param identity: name of the job, common to all its attempts.
    :param job_root: directory on the cluster's shared file system that holds ``<identity>/<attempt>``.
    :param script: text of the batch script.
    :param options: for sbatch's command line; they override the script's own.
    :param array: elements of a job array, as ``sbatch --array`` takes them; ``None`` for a single job.
    """

    identity: str
    job_root: str
    script: str
    script_args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    array: str | None = None

    def __post_init__(self) -> None:
        if self.array is not None:
            try:
                JobArray.parse(self.array)
            except ValueError as error:
                raise InvalidJob(str(error)) from error
        if not self.job_root.startswith("/"):
            raise InvalidJob(f"job_root must be an absolute path on the cluster, not {self.job_root!r}")
        if "%" in self.job_root:
            raise InvalidJob(f"job_root {self.job_root!r} holds a '%', which Slurm expands in file names")

    @property
    def identity_dir(self) -> str:
        """Where all attempts of this job live."""
        return posixpath.join(self.job_root, self.identity)

    def job_dir(self, attempt: int) -> str:
        """Where one attempt lives."""
        return posixpath.join(self.identity_dir, str(attempt))


@dataclass(frozen=True)
class Remembered:
    """What a memory apart from the cluster holds of the last submission under an identity."""

    attempt: int
    job_id: str
    cluster: str | None = None


@dataclass(frozen=True)
class Plan:
    """What to do about a job.

    ``attach``: it lives; ``take``: it has succeeded; ``submit``: nothing lives under this identity;
    ``wait``: that cannot be told.

    :param attempt: the attempt that this is about.
    :param job_id: its job; empty for ``submit`` and ``wait``.
    :param superfluous: held jobs of the same identity that must go.
    """

    action: Literal["attach", "take", "submit", "wait"]
    reason: str
    attempt: int = 1
    job_id: str = ""
    superfluous: tuple[str, ...] = ()


def plan(
    lookup: Lookup, newest: Resolution | None, *, after: int = 0, remembered: Remembered | None = None
) -> Plan:
    """Decide from what stands on the cluster. Of two living jobs, the one that was submitted first counts.

    :param newest: how the job of the newest attempt stands; ``None`` if it has no known job.
    :param after: attempts up to this one are over and do not count.
    :param remembered: what must stand on the cluster, if it is the right one and has lost nothing.
    """
    last = next((attempt for attempt in reversed(lookup.attempts) if attempt.number > after), None)
    held = tuple(job.job_id for job in lookup.jobs if job.held_by_us)
    if last is not None and newest is not None and newest.state is JobState.SUCCEEDED:
        job_id = str(last.job_id)
        spare = tuple(h for h in held if h != job_id)
        return Plan("take", newest.reason, last.number, job_id, superfluous=spare)
    if lookup.controller_error:
        return Plan("wait", lookup.controller_error)
    if wrong := wrong_cluster(lookup, last, remembered):
        return Plan("wait", wrong, last.number if last else 1)
    if lookup.jobs:
        known = {attempt.job_id: attempt.number for attempt in lookup.attempts if attempt.job_id}
        if remembered is not None:
            known.setdefault(remembered.job_id, remembered.attempt)
        # A job that was noted is ahead of one whose submitter did not get that far.
        first = min(lookup.jobs, key=lambda job: (job.job_id not in known, int(job.job_id)))
        number = known.get(first.job_id, last.number if last else after + 1)
        spare = tuple(h for h in held if h != first.job_id)
        return Plan("attach", f"squeue says {first.code}", number, first.job_id, superfluous=spare)
    if remembered is not None and remembered.attempt > max(after, last.number if last else 0):
        reason = (
            f"job {remembered.job_id} is neither in the queue nor in job_root: "
            "the connection leads to another cluster, or the file system was wiped"
        )
        return Plan("wait", reason, remembered.attempt)
    if last is None:
        return Plan("submit", f"no attempt after {after}" if after else "no attempt yet", after + 1)
    if last.job_id is None:
        # Its submitter stopped between making the directory and noting the job's number.
        return Plan("submit", f"attempt {last.number} was prepared, and no job of it is known", last.number)
    if newest is None or newest.state is JobState.UNKNOWN:
        return Plan("wait", newest.reason if newest else "its job was not asked about", last.number)
    if newest.state.alive:
        return Plan("attach", newest.reason, last.number, last.job_id)
    return Plan("submit", f"attempt {last.number}: {newest.reason}", last.number + 1)


def array_of_attempt(
    number: int, lookup: Lookup, newest: Resolution | None, *, wanted: str | None, after: int
) -> str | None:
    """Return which elements an attempt has: the first all, a later one those that did not succeed before.

    :param newest: how the job of the attempt before this one stands.
    :param wanted: the whole array; ``None`` for a single job.
    """
    arrays = {attempt.number: attempt.array for attempt in lookup.attempts}
    if number in arrays:
        return arrays[number]
    before = arrays.get(number - 1) if number - 1 > after else None
    if before is None or newest is None:
        return wanted
    return str(JobArray.parse(before).only(newest.unfinished))


def wrong_cluster(lookup: Lookup, last: Attempt | None, remembered: Remembered | None) -> str:
    """Say that the last job was submitted to another cluster than the one that answers; empty if it was not."""
    noted = (last.submitted.get("cluster") if last else None, remembered.cluster if remembered else None)
    return next((wrong for cluster in noted if (wrong := other_cluster(cluster, lookup.cluster))), "")


def twin(lookup_jobs: tuple[str, ...], own: str) -> str | None:
    """Return the living job of the same identity that was submitted before ``own``, if there is one."""
    earlier = [job_id for job_id in lookup_jobs if int(job_id) < int(own)]
    return min(earlier, key=int) if earlier else None
