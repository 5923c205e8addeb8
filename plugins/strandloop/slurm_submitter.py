"""Making sure that one job of an identity is in Slurm: looked up first, submitted at most once."""

from __future__ import annotations

import json
import posixpath
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from strandloop.errors import ConnectionBroken, RemoteJobError, StateUnknown, SubmitRefused
from strandloop.hooks.slurm import Completed
from strandloop.job_record import JobRecord, utc_now
from strandloop.slurm_answers import Attempt, Lookup, parse_job_id, parse_lookup, parse_queued
from strandloop.slurm_commands import (
    ARRAY,
    SCRIPT,
    SUBMITTED,
    Command,
    cancel,
    look_up,
    queued,
    release,
    submit,
    write_file,
)
from strandloop.slurm_script import batch_script
from strandloop.slurm_state import JobState, Resolution
from strandloop.slurm_submission import (
    Plan,
    Remembered,
    Submission,
    array_of_attempt,
    plan,
    twin,
    wrong_cluster,
)
from strandloop.slurm_waiting import ask
from strandloop.slurm_waiting import cancel as cancel_and_wait

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

    def ensure(
        self, submission: Submission, *, durable: bool = True, remembered: Remembered | None = None
    ) -> JobRecord:
        """Return the record of the one job of this identity: found alive, found successful, or submitted.

        :param durable: whether what an earlier try left counts; if not, it is cancelled first.
        :param remembered: the last submission, as a memory apart from the cluster holds it.
        :raises SubmitRefused: if sbatch says no.
        :raises StateUnknown: if it could not be told how an earlier submission stands.
        :raises ConnectionBroken: if the node or the controller did not answer for ``patience`` seconds.
        """
        after = 0 if durable else self._renounce(submission, remembered)
        give_up_at = time.monotonic() + self.patience
        lost_looks = 0
        while True:
            problem: RemoteJobError
            try:
                lookup, newest = self._look(submission, after=after)
                decision = plan(lookup, newest, after=after, remembered=remembered)
                lost = decision.action == "submit" and decision.attempt in {a.number for a in lookup.attempts}
                lost_looks = lost_looks + 1 if lost else 0
                if decision.action == "wait":
                    problem = self._unclear(submission, lookup, decision)
                elif lost and lost_looks < LOOKS_FOR_A_LOST_SUBMISSION:
                    problem = StateUnknown(decision.reason)
                elif (record := self._do(decision, submission, lookup, newest, after)) is not None:
                    return record
                else:
                    continue
            except ConnectionBroken as error:
                problem = error
            if time.monotonic() > give_up_at:
                raise problem
            self.log(f"{problem}; looking again")
            time.sleep(self.look_interval)

    def _renounce(self, submission: Submission, remembered: Remembered | None) -> int:
        """Cancel what earlier tries left alive; return the number of their last attempt, 0 if there is none."""
        give_up_at = time.monotonic() + self.patience
        while True:
            try:
                lookup, _ = self._look(submission, after=None)
                if not lookup.controller_error:
                    break
                problem = ConnectionBroken(f"Slurm's controller does not answer: {lookup.controller_error}")
            except ConnectionBroken as error:
                problem = error
            if time.monotonic() > give_up_at:
                raise problem
            self.log(f"{problem}; looking again")
            time.sleep(self.look_interval)
        last = lookup.attempts[-1] if lookup.attempts else None
        if wrong := wrong_cluster(lookup, last, remembered):
            raise StateUnknown(
                f"what earlier tries of job {submission.identity} left cannot be cancelled: {wrong}"
            )
        numbers = [attempt.number for attempt in lookup.attempts]
        numbers += [remembered.attempt] if remembered else []
        if lookup.jobs or numbers:
            self.log(f"cancelling what earlier tries of job {submission.identity} left alive")
            if not cancel_and_wait(self.run, submission.identity, patience=self.patience):
                raise StateUnknown(f"job {submission.identity}, of an earlier try, does not end")
        return max(numbers, default=0)

    def _look(self, submission: Submission, *, after: int | None) -> tuple[Lookup, Resolution | None]:
        """Ask what stands on the cluster, and how the newest attempt's job does.

        :param after: attempts up to this one do not count; ``None`` to ask about none of them.
        """
        done = self.run(look_up(submission.identity_dir, name=submission.identity))
        lookup = parse_lookup(done.stdout)
        newest = lookup.attempts[-1] if lookup.attempts else None
        if after is None or newest is None or newest.job_id is None or newest.number <= after:
            return lookup, None
        record = self._record(submission, newest.number, newest.job_id, newest.array, lookup.cluster)
        return lookup, ask(self.run, record, reader="submitter")

    def _record(
        self, submission: Submission, attempt: int, job_id: str, array: str | None, cluster: str
    ) -> JobRecord:
        return JobRecord(
            system="slurm",
            id=job_id,
            name=submission.identity,
            state=str(JobState.PENDING),
            submitted_at=utc_now(),
            attempt=attempt,
            cluster=cluster,
            job_dir=submission.job_dir(attempt),
            array=array,
        )

    def _do(
        self,
        decision: Plan,
        submission: Submission,
        lookup: Lookup,
        newest: Resolution | None,
        after: int,
    ) -> JobRecord | None:
        """Carry a decision out; ``None`` asks for another look."""
        for job_id in decision.superfluous:
            self.log(f"cancelling job {job_id}, a second one of the same task that was never released")
            self._must(cancel(job_id))
        if decision.action == "submit":
            array = array_of_attempt(decision.attempt, lookup, newest, wanted=submission.array, after=after)
            self.log(f"submitting attempt {decision.attempt}: {decision.reason}")
            return self._submit(submission, decision.attempt, array, lookup.cluster)
        unseen = Attempt(decision.attempt, {"array": submission.array or ""})
        attempt = next((a for a in lookup.attempts if a.number == decision.attempt), unseen)
        noted = attempt.submitted
        cluster = noted.get("cluster") or lookup.cluster
        record = self._record(submission, attempt.number, decision.job_id, attempt.array, cluster)
        record = replace(record, submitted_at=noted.get("submitted_at") or record.submitted_at)
        if decision.action == "take" and newest is not None:
            self.log(f"taking the result of job {decision.job_id}: {decision.reason}")
            return newest.applied_to(record)
        self.log(f"attaching to job {decision.job_id}, attempt {decision.attempt}: {decision.reason}")
        if noted:
            return record
        if any(job.job_id == decision.job_id and job.held_by_us for job in lookup.jobs):
            self._must(release(decision.job_id))
        return self._noted(record)

    def _submit(
        self, submission: Submission, attempt: int, array: str | None, cluster: str
    ) -> JobRecord | None:
        job_dir = submission.job_dir(attempt)
        text = batch_script(
            submission.script,
            job_dir=job_dir,
            script_args=submission.script_args,
            environment=submission.environment,
            array=array is not None,
        )
        if array is not None:
            self._must(write_file(posixpath.join(job_dir, ARRAY), f"{array}\n".encode()))
        self._must(write_file(posixpath.join(job_dir, SCRIPT), submission.script.encode()))
        submitted_at = utc_now()
        done = self.run(
            submit(text, job_dir=job_dir, name=submission.identity, options=submission.options, array=array)
        )
        job_id = parse_job_id(done.stdout.decode("utf-8", "replace")) if done.rc == 0 else None
        if job_id is None:
            if done.rc in (0, 124) or _NO_ANSWER.search(done.text):
                raise ConnectionBroken(f"sbatch gave no clear answer: {done.text or 'no text'}")
            raise SubmitRefused(f"sbatch refused attempt {attempt} of job {submission.identity}: {done.text}")
        rows = self._must(queued(submission.identity)).stdout.decode("utf-8", "replace")
        living = tuple(job.job_id for job in parse_queued(rows))
        if job_id not in living:
            raise ConnectionBroken(f"squeue does not list job {job_id}, which was just submitted")
        if earlier := twin(living, job_id):
            self.log(f"job {earlier} of the same task was submitted before; cancelling job {job_id}")
            self._must(cancel(job_id))
            return None
        self._must(release(job_id))
        record = self._record(submission, attempt, job_id, array, cluster)
        return self._noted(replace(record, submitted_at=submitted_at))

    def _noted(self, record: JobRecord) -> JobRecord:
        """Write beside the job which number it has; from here on it may be waited for by number."""
        note = {"job_id": record.id, "cluster": record.cluster, "submitted_at": record.submitted_at}
        path = posixpath.join(str(record.job_dir), SUBMITTED)
        self._must(write_file(path, (json.dumps(note) + "\n").encode()))
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
