"""Making sure that one job of an identity is in Slurm: looked up first, submitted at most once."""

from __future__ import annotations

import json
import posixpath
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from strandloop.errors import ConnectionBroken, RemoteJobError, StateUnknown, SubmitRefused
from strandloop.hooks.slurm import Completed
from strandloop.job_record import JobRecord, utc_now
from strandloop.slurm_answers import Attempt, Lookup, parse_job_id, parse_lookup, parse_poll, parse_queued
from strandloop.slurm_commands import (
    SCRIPT,
    SUBMITTED,
    Command,
    cancel,
    look_up,
    poll,
    queued,
    release,
    submit,
    write_file,
)
from strandloop.slurm_script import batch_script
from strandloop.slurm_state import JobState, Resolution, resolve
from strandloop.slurm_submission import Plan, Submission, plan, twin

#: Seconds between looks while it cannot be told what stands on the cluster.
LOOK_INTERVAL = 5.0

#: An attempt that was prepared, and whose job nobody knows, is submitted again after so many looks:
#: one empty answer of squeue means nothing.
LOOKS_FOR_A_LOST_SUBMISSION = 3

# What sbatch says when the controller may or may not have taken the job.
_NO_ANSWER = re.compile(
    "unable to contact|timed out|connection refused|temporarily un|zero bytes|communication|not responding",
    re.IGNORECASE,
)


@dataclass
class Submitter:
    """Brings one job into Slurm and returns its record.

    :param run: runs a command on the login node, see :meth:`strandloop.hooks.slurm.SlurmHook.run`.
    :param log: receives what is done, in words.
    :param patience: seconds to go on looking while the cluster gives no clear answer.
    """

    run: Callable[[Command], Completed]
    log: Callable[[str], None]
    patience: float = 600.0
    look_interval: float = LOOK_INTERVAL

    def ensure(self, submission: Submission) -> JobRecord:
        """Return the record of the one job of this identity: found alive, found successful, or submitted.

        :raises SubmitRefused: if sbatch says no.
        :raises StateUnknown: if it could not be told how an earlier submission stands.
        :raises ConnectionBroken: if the node or the controller did not answer for ``patience`` seconds.
        """
        give_up_at = time.monotonic() + self.patience
        lost_looks = 0
        while True:
            problem: RemoteJobError
            try:
                lookup, newest = self._look(submission)
                decision = plan(lookup, newest)
                lost = decision.action == "submit" and decision.attempt in {a.number for a in lookup.attempts}
                lost_looks = lost_looks + 1 if lost else 0
                if decision.action == "wait":
                    problem = self._unclear(submission, lookup, decision)
                elif lost and lost_looks < LOOKS_FOR_A_LOST_SUBMISSION:
                    problem = StateUnknown(decision.reason)
                elif (record := self._do(decision, submission, lookup, newest)) is not None:
                    return record
                else:
                    continue
            except ConnectionBroken as error:
                problem = error
            if time.monotonic() > give_up_at:
                raise problem
            self.log(f"{problem}; looking again")
            time.sleep(self.look_interval)

    def _look(self, submission: Submission) -> tuple[Lookup, Resolution | None]:
        """Ask what stands on the cluster, and how the newest attempt's job does."""
        done = self.run(look_up(submission.identity_dir, name=submission.identity))
        lookup = parse_lookup(done.stdout)
        newest = lookup.attempts[-1] if lookup.attempts else None
        if newest is None or newest.job_id is None:
            return lookup, None
        job_dir = submission.job_dir(newest.number)
        done = self.run(poll(job_dir, job_id=newest.job_id, reader="submitter", offset=0, limit=0))
        try:
            evidence, _, _ = parse_poll(done.stdout, job_id=newest.job_id, name=submission.identity)
        except ValueError as error:
            raise ConnectionBroken(str(error)) from error
        return lookup, resolve(evidence)

    def _do(
        self, decision: Plan, submission: Submission, lookup: Lookup, newest: Resolution | None
    ) -> JobRecord | None:
        """Carry a decision out; ``None`` asks for another look."""
        for job_id in decision.superfluous:
            self.log(f"cancelling job {job_id}, a second one of the same task that was never released")
            self._must(cancel(job_id))
        if decision.action == "submit":
            self.log(f"submitting attempt {decision.attempt}: {decision.reason}")
            return self._submit(submission, decision.attempt, lookup.cluster)
        attempt = next(
            (a for a in lookup.attempts if a.number == decision.attempt), Attempt(decision.attempt, {})
        )
        if decision.action == "take":
            self.log(f"taking the result of job {decision.job_id}: {decision.reason}")
        else:
            self.log(f"attaching to job {decision.job_id}, attempt {decision.attempt}: {decision.reason}")
            job = next((job for job in lookup.jobs if job.job_id == decision.job_id), None)
            if not attempt.submitted:
                if job is not None and job.held_by_us:
                    self._must(release(decision.job_id))
                return self._note(submission, decision, lookup.cluster)
        ended = newest if decision.action == "take" else None
        noted = attempt.submitted
        return JobRecord(
            system="slurm",
            id=decision.job_id,
            name=submission.identity,
            state=str(ended.state if ended else JobState.PENDING),
            submitted_at=noted.get("submitted_at") or (ended and ended.started_at) or utc_now(),
            attempt=decision.attempt,
            nodes=ended.node_count if ended else 0,
            started_at=ended.started_at if ended else None,
            ended_at=ended.ended_at if ended else None,
            cluster=noted.get("cluster") or lookup.cluster,
            job_dir=submission.job_dir(decision.attempt),
        )

    def _submit(self, submission: Submission, attempt: int, cluster: str) -> JobRecord | None:
        job_dir = submission.job_dir(attempt)
        text = batch_script(
            submission.script,
            job_dir=job_dir,
            script_args=submission.script_args,
            environment=submission.environment,
        )
        self._must(write_file(posixpath.join(job_dir, SCRIPT), submission.script.encode()))
        done = self.run(
            submit(text, job_dir=job_dir, name=submission.identity, options=list(submission.options))
        )
        job_id = parse_job_id(done.stdout.decode("utf-8", "replace")) if done.rc == 0 else None
        if job_id is None:
            if done.rc in (0, 124) or _NO_ANSWER.search(done.text):
                raise ConnectionBroken(f"sbatch gave no clear answer: {done.text or 'no text'}")
            raise SubmitRefused(f"sbatch refused attempt {attempt} of job {submission.identity}: {done.text}")
        living = parse_queued(self._must(queued(submission.identity)).stdout.decode("utf-8", "replace"))
        if earlier := twin(tuple(job.job_id for job in living), job_id):
            self.log(f"job {earlier} of the same task was submitted before; cancelling job {job_id}")
            self._must(cancel(job_id))
            return None
        self._must(release(job_id))
        return self._note(submission, Plan("attach", "", attempt, job_id), cluster)

    def _note(self, submission: Submission, decision: Plan, cluster: str) -> JobRecord:
        """Write beside the job which number it has; from here on it may be waited for by number."""
        record = JobRecord(
            system="slurm",
            id=decision.job_id,
            name=submission.identity,
            state=str(JobState.PENDING),
            submitted_at=utc_now(),
            attempt=decision.attempt,
            cluster=cluster,
            job_dir=submission.job_dir(decision.attempt),
        )
        note = {"job_id": record.id, "cluster": cluster, "submitted_at": record.submitted_at}
        self._must(
            write_file(posixpath.join(str(record.job_dir), SUBMITTED), (json.dumps(note) + "\n").encode())
        )
        return record

    def _must(self, command: Command) -> Completed:
        """Run a command that the rest depends on; what it says is not the job's fault, so look again."""
        done = self.run(command)
        if done.rc != 0:
            raise ConnectionBroken(f"{' '.join(command.args[4:6])}: exit status {done.rc}, {done.text}")
        return done

    def _unclear(self, submission: Submission, lookup: Lookup, decision: Plan) -> RemoteJobError:
        if lookup.controller_error:
            return ConnectionBroken(f"Slurm's controller does not answer: {lookup.controller_error}")
        return StateUnknown(
            f"attempt {decision.attempt} of job {submission.identity} was submitted and nobody can tell how "
            f"it stands, so nothing is submitted beside it. Asked and answered: {decision.reason}. "
            "Clear the task to start a new job once you know that the old one is gone"
        )
