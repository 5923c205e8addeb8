"""Waiting for Slurm jobs and ending them: the loops around :mod:`strandloop.slurm_watch`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from strandloop.errors import ConnectionBroken, InvalidJob, JobFailed, JobTimeout, StateUnknown, SubmitRefused
from strandloop.hooks.slurm import AsyncSlurmHook, Completed
from strandloop.job_record import JobRecord
from strandloop.slurm_answers import parse_poll, parse_queued
from strandloop.slurm_array import JobArray
from strandloop.slurm_commands import Command, cancel_by_name, poll, poll_array, queued
from strandloop.slurm_elements import combine, resolve_elements
from strandloop.slurm_outcome import Outcome
from strandloop.slurm_state import JobState, Resolution, resolve
from strandloop.slurm_watch import SlurmWatch, WatchPlan, job_in_words

Run = Callable[[Command], Completed]

#: One empty answer of squeue means nothing; so many in a row, with a pause between them, do.
GONE_LOOKS = 3
GONE_PAUSE = 0.5

#: Seconds for which lines of log are told until others may use the event loop.
TELL_SECONDS = 0.005

log = logging.getLogger(__name__)


def wait(run: Run, plan: WatchPlan, *, say: Callable[[str], None]) -> Outcome:
    """Block until the job ended, a limit passed, or nobody could tell for too long.

    :param say: receives the job's log lines.
    """
    watch = SlurmWatch(plan, log=say)
    while True:
        if (outcome := look(run, watch)) is not None:
            return outcome
        time.sleep(watch.pause())


def look(run: Run, watch: SlurmWatch) -> Outcome | None:
    """Ask once how the job stands."""
    try:
        outcome = watch.observe(run(watch.command()).stdout, now=time.time())
        if outcome is not None and outcome.failed:
            return _closed(outcome, run(watch.closing(outcome)))
    except ConnectionBroken as error:
        outcome = watch.unanswered(str(error), now=time.time())
    return outcome


async def wait_in_loop(hook: AsyncSlurmHook, plan: WatchPlan, *, say: Callable[[str], None]) -> Outcome:
    """Do what :func:`wait` does without blocking; a connection that cannot work is an outcome too."""
    lines: list[str] = []
    watch = SlurmWatch(plan, log=lines.append)
    while True:
        try:
            answer = await hook.run(watch.command())
            # Off the loop: an answer may hold thousands of lines of log, or thousands of elements.
            outcome = await asyncio.to_thread(watch.observe, answer.stdout, now=time.time())
            if outcome is not None and outcome.failed:
                outcome = _closed(outcome, await hook.run(watch.closing(outcome)))
        except ConnectionBroken as error:
            outcome = watch.unanswered(str(error), now=time.time())
        except InvalidJob as error:
            return Outcome(plan.record, str(JobState.UNKNOWN), "", invalid=str(error))
        await _tell(lines, say)
        if outcome is not None:
            return outcome
        if (bookmark := watch.bookmark()) is not None:
            with contextlib.suppress(ConnectionBroken):  # the next question tells it too
                await hook.run(bookmark)
        await asyncio.sleep(watch.pause())


def settle(run: Run, outcome: Outcome, *, cancel_patience: float = 60.0) -> dict[str, Any]:
    """Return the record of a job that succeeded; cancel a job that passed a limit; else raise.

    A job that passed a limit and succeeded before its cancellation reached it has succeeded.

    :raises JobFailed: if the job was seen to fail; as :class:`JobTimeout` if a limit of the task passed.
    :raises SubmitRefused: if Slurm took the job and will never start it; it is cancelled.
    :raises StateUnknown: if nobody could tell.
    :raises InvalidJob: if the connection cannot work.
    """
    record = JobRecord.from_xcom(outcome.record)
    job = job_in_words(record)
    if outcome.invalid:
        raise InvalidJob(f"{job}: {outcome.invalid}")
    if outcome.state == JobState.SUCCEEDED:
        return outcome.record
    if outcome.limit:
        return _stop_at_limit(run, outcome, patience=cancel_patience)
    if outcome.state == JobState.UNKNOWN:
        raise StateUnknown(f"{job}: {outcome.reason}. The job itself was left alone")
    raise JobFailed(
        job,
        reason=f"{outcome.state}: {outcome.reason}",
        exit_code=outcome.exit_code,
        nodes=outcome.nodes,
        last_lines=outcome.last_lines,
    )


def ask(run: Run, record: JobRecord, *, reader: str) -> Resolution:
    """Ask everybody how a job stands, leaving its log alone.

    :raises ConnectionBroken: if the node, or its shared file system, does not answer.
    """
    job_dir = str(record.job_dir)
    if record.array is None:
        question = poll(job_dir, job_id=record.id, reader=reader, offset=0, limit=0, doubt=True)
    else:
        question = poll_array(job_dir, job_id=record.id, reader=reader, doubt=True)
    try:
        answer = parse_poll(run(question).stdout, job_id=record.id, name=record.name)
    except ValueError as error:
        raise ConnectionBroken(str(error)) from error
    if not answer.files_read:
        raise ConnectionBroken(f"the shared file system does not answer: {job_dir} could not be read")
    if record.array is None:
        return resolve(answer.evidence)
    return combine(resolve_elements(answer.evidence, JobArray.parse(record.array)))


def cancel(run: Run, *names: str, patience: float) -> bool:
    """Cancel whatever lives under these identities and wait until it is gone; return whether it is.

    It is told again and again, so that a controller or a connection that was down for a moment does
    not leave a job alive; and it is gone only when several looks in a row say so.
    """
    give_up_at = time.monotonic() + patience
    looks = 0
    while True:
        try:
            for name in names:
                run(cancel_by_name(name))
            looks = looks + 1 if _gone(run(queued(*names))) else 0
            if looks == GONE_LOOKS:
                return True
        except ConnectionBroken as error:
            looks = 0
            log.warning("cancelling job %s: %s", ", ".join(names), error)
        if time.monotonic() > give_up_at:
            return False
        time.sleep(GONE_PAUSE)


async def cancel_in_loop(hook: AsyncSlurmHook, name: str, *, patience: float) -> bool:
    """Do what :func:`cancel` does without blocking; it returns when patience ends, whatever goes on."""
    looks = 0
    try:
        async with asyncio.timeout(patience):
            while True:
                try:
                    await hook.run(cancel_by_name(name))
                    looks = looks + 1 if _gone(await hook.run(queued(name))) else 0
                    if looks == GONE_LOOKS:
                        return True
                except ConnectionBroken as error:
                    looks = 0
                    log.warning("cancelling job %s: %s", name, error)
                await asyncio.sleep(GONE_PAUSE)
    except TimeoutError:
        return False


def _stop_at_limit(run: Run, outcome: Outcome, *, patience: float) -> dict[str, Any]:
    record = JobRecord.from_xcom(outcome.record)
    gone = cancel(run, record.name, patience=patience)
    try:
        end = ask(run, record, reader="settle")
        if end.state is JobState.SUCCEEDED:
            log.info("%s succeeded as it was about to be cancelled: %s", job_in_words(record), outcome.reason)
            return end.applied_to(record).to_xcom()
        watch = SlurmWatch(WatchPlan(outcome.record, reader="settle"), log=log.info)
        outcome = _closed(outcome, run(watch.closing(outcome)))
    except ConnectionBroken as error:
        log.warning("%s: its end could not be looked at: %s", job_in_words(record), error)
    job = job_in_words(record)
    reason = outcome.reason + (
        "; it was cancelled" if gone else "; it was told to stop and is still in the queue"
    )
    if outcome.limit == "never":
        raise SubmitRefused(f"{job}: {reason}")
    raise JobTimeout(job, reason=reason, nodes=outcome.nodes, last_lines=outcome.last_lines)


async def _tell(lines: list[str], say: Callable[[str], None]) -> None:
    """Say the lines, giving way to others again and again, and take them off the list."""
    give_way_at = time.monotonic() + TELL_SECONDS
    for line in lines:
        say(line)
        if time.monotonic() > give_way_at:
            await asyncio.sleep(0)
            give_way_at = time.monotonic() + TELL_SECONDS
    lines.clear()


def _gone(answer: Completed) -> bool:
    return answer.rc == 0 and not parse_queued(answer.stdout.decode("utf-8", "replace"))


def _closed(outcome: Outcome, answer: Completed) -> Outcome:
    if answer.rc != 0:
        log.warning("could not keep the verdict beside the job: %s", answer.text)
    return outcome.with_log_end(answer.stdout)
