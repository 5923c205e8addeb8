"""Run a Ray job as an Airflow task."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from strandloop.code_archive import archive_packages
from strandloop.errors import InvalidJob, JobFailed, JobTimeout, RemoteJobError, StateUnknown
from strandloop.hooks.ray_jobs import RayJobHook
from strandloop.job_identity import earlier_identities_of, generation_of, identity_of
from strandloop.links.ray_jobs import RayJobLink
from strandloop.ray_bookmark import TaskStoreShelf
from strandloop.ray_dialogue import find_attempts, outlive_orphans, stop, submit, upload
from strandloop.ray_job import Outcome, RayJob, submission_id_of
from strandloop.ray_limits import Limits, seconds_of
from strandloop.ray_submission import submission_body
from strandloop.ray_watch import watch
from strandloop.succession import Succession
from strandloop.triggers.ray_jobs import KILL_WAIT, RayJobTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

# Where Airflow has a store that survives retries (3.3), it remembers the last attempt that Ray took.
SUBMITTED = "ray_job"


class RayJobOperator(BaseOperator):
    """Submits a job to a Ray cluster and follows it to its end; returns the job record.

    At most one job per task instance is alive: the submission id is derived from the task instance, and
    Ray is asked about it before anything is submitted. A job that is alive is attached to, one that
    succeeded gives its result, and after one that failed, was stopped or is lost the next attempt is
    submitted. Clearing the task stops what it left alive and gives it a new job.

    The limits are points in time: no restart of Airflow, no crash of the worker and no retry that attaches
    to the same job extends them. A job that reaches one is stopped, and the task says which it was. They
    hold while this task waits: without ``wait_for_completion`` only Ray's own limits do.

    :param entrypoint: command of the driver, as an argument list, or as text for the shell. (templated)
    :param packages: importable top-level packages that travel with the job as its working directory.
    :param runtime_env: further parts of Ray's runtime environment: ``env_vars``, ``pip``. (templated)
    :param metadata: text by text, shown in the dashboard. (templated)
    :param entrypoint_num_cpus: CPUs reserved for the driver; without any the driver runs on the head.
    :param entrypoint_num_gpus: GPUs reserved for the driver.
    :param entrypoint_memory: bytes of memory reserved for the driver.
    :param entrypoint_resources: custom resources reserved for the driver.
    :param ray_conn_id: see :class:`~strandloop.hooks.ray_jobs.RayJobHook`. (templated)
    :param wait_for_completion: otherwise the job record of the submitted job is returned at once.
    :param deferrable: wait in the triggerer.
    :param durable: whether a retry goes on with what an earlier try left: attaches to a living job, takes
        the result of one that succeeded. Otherwise a retry stops what lives, waits until it is gone, and
        submits the next attempt.
    :param poll_interval_seconds: seconds between two looks at the job and its log.
    :param deadline: when the task must be done: a date and time with a time zone, or its ISO 8601 text, such
        as ``"{{ data_interval_end + macros.timedelta(hours=6) }}"``. (templated)
    :param queue_timeout_seconds: limit of one attempt from its submission, by the head's clock, until its
        driver starts. Ray has a limit of its own, 15 minutes (``RAY_JOB_START_TIMEOUT_SECONDS``).
    :param run_timeout_seconds: limit of one attempt from the start of its driver.
    :param unreachable_timeout_seconds: seconds without an answer from Ray until the task fails.
    :param cancel_on_kill: stop the job when a person ends or clears the task. Airflow 3.2 does not tell a
        deferred task that it was ended: there only clearing it does.
    :param no_retry_exit_codes: exit codes by which the driver says that a retry cannot help.
    """

    template_fields: Sequence[str] = ("entrypoint", "runtime_env", "metadata", "ray_conn_id", "deadline")
    template_fields_renderers = {"runtime_env": "json", "metadata": "json"}  # noqa: RUF012
    operator_extra_links = (RayJobLink(),)
    ui_color = "#e8f4fb"

    def __init__(
        self,
        *,
        entrypoint: list[str] | str,
        packages: Sequence[str] = (),
        runtime_env: dict[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        entrypoint_num_cpus: float | None = None,
        entrypoint_num_gpus: float | None = None,
        entrypoint_memory: int | None = None,
        entrypoint_resources: dict[str, float] | None = None,
        ray_conn_id: str = RayJobHook.default_conn_name,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        durable: bool = True,
        poll_interval_seconds: float = 5.0,
        deadline: datetime | str | None = None,
        queue_timeout_seconds: float | None = None,
        run_timeout_seconds: float | None = None,
        unreachable_timeout_seconds: float = 300.0,
        cancel_on_kill: bool = True,
        no_retry_exit_codes: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.entrypoint = entrypoint
        self.packages = tuple(packages)
        self.runtime_env = runtime_env
        self.metadata = metadata
        self.entrypoint_num_cpus = entrypoint_num_cpus
        self.entrypoint_num_gpus = entrypoint_num_gpus
        self.entrypoint_memory = entrypoint_memory
        self.entrypoint_resources = entrypoint_resources
        self.ray_conn_id = ray_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.durable = durable
        self.poll_interval_seconds = poll_interval_seconds
        self.deadline = deadline
        self.queue_timeout_seconds = queue_timeout_seconds
        self.run_timeout_seconds = run_timeout_seconds
        self.unreachable_timeout_seconds = unreachable_timeout_seconds
        self.cancel_on_kill = cancel_on_kill
        self.no_retry_exit_codes = tuple(no_retry_exit_codes)
        self._hook: RayJobHook | None = None
        self._submission_id: str | None = None
        self._succession: Succession | None = None
        self._killed = False
        self._left_alone = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Find or submit the job, then wait for it."""
        limits = Limits(
            seconds_of(self.deadline),
            queue_timeout_seconds=self.queue_timeout_seconds,
            run_timeout_seconds=self.run_timeout_seconds,
        )
        self._succession = Succession(context)
        self._succession.begin()
        self._hook = RayJobHook(self.ray_conn_id)
        job = self._find_or_submit(self._hook, context, limits)
        RayJobLink().persist(context["ti"], url=self._hook.dashboard().job_page(job.submission_id))
        if not self.wait_for_completion:
            return job.record().to_xcom()
        shelf = TaskStoreShelf(context.get("task_state_store"), say=self.log.info)
        bookmark = shelf.read()
        if self.deferrable and job.alive:
            trigger = RayJobTrigger(
                job.submission_id,
                ray_conn_id=self.ray_conn_id,
                poll_interval_seconds=self.poll_interval_seconds,
                unreachable_timeout_seconds=self.unreachable_timeout_seconds,
                deadline=limits.deadline,
                cancel_on_kill=self.cancel_on_kill,
                queue_timeout_seconds=self.queue_timeout_seconds,
                run_timeout_seconds=self.run_timeout_seconds,
                bookmark=bookmark.to_json() if bookmark and bookmark.same_job(job.bookmark) else None,
            )
            self.defer(trigger=trigger, method_name="execute_complete")
        outcome = self._hook.play(
            watch(
                job.submission_id,
                poll=self.poll_interval_seconds,
                patience=self.unreachable_timeout_seconds,
                limits=limits,
                bookmark=bookmark,
            ),
            keep=shelf.keep,
        )
        return self._result(outcome)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Turn what the trigger saw into the job record, or into the failure of this task."""
        outcome = Outcome.from_event(event)
        if outcome.end != "ended" and outcome.bookmark is not None:
            # The job may go on, and a retry with it; what the trigger kept, Airflow drops before that.
            TaskStoreShelf(context.get("task_state_store"), say=self.log.info).keep(outcome.bookmark)
        return self._result(outcome)

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        try:
            return outcome.record().to_xcom()
        except JobFailed as error:
            if error.exit_code in self.no_retry_exit_codes:
                raise AirflowFailException(str(error)) from error
            raise

    def on_kill(self) -> None:
        """Stop the job and wait until it is gone. Runs in a signal handler, in the middle of `execute`.

        A leftover of an earlier try leaves the job alone: the try that has followed answers for it.
        """
        self._killed = True
        if self._hook is None or self._submission_id is None or not self.cancel_on_kill:
            return
        if self._succession is not None and self._succession.superseded():
            self._left_alone = True
            self.log.info("Another try has taken over Ray job %s, which is left alone", self._submission_id)
            return
        self._stop(self._hook, self._submission_id)

    def _find_or_submit(self, hook: RayJobHook, context: Context, limits: Limits) -> RayJob:
        ti, store, patience = context["ti"], context.get("task_state_store"), self.unreachable_timeout_seconds
        identity = identity_of(ti)
        # A try submits once at most, so this bounds the attempts of earlier tries.
        earlier_tries = ti.try_number - 1 - generation_of(max_tries=ti.max_tries, retries=self.retries or 0)
        if self.cancel_on_kill:
            self._end_cleared(hook, ti)
        submitted = _submitted(store.get(SUBMITTED) if store is not None else None, identity)
        at_least = max(submitted, earlier_tries)
        attempts = hook.play(find_attempts(identity, at_least=at_least, patience=patience))
        job = attempts.alive[0] if attempts.alive else attempts.result
        if job is not None and not self.durable and earlier_tries > 0:
            for left in attempts.alive:
                self._end(hook, left, why="an earlier try left it, and the task is not durable")
            job = None
        if (
            job is not None
            and job.status == "PENDING"
            and time.time() >= limits.next(job, running_since=None)[0]
        ):
            self._end(hook, job, why="it has waited past its limit")
            job = None
        if job is not None:
            self._submission_id = job.submission_id
            self.log.info("Ray job %s was submitted before and is %s", job.submission_id, job.status)
            return job
        attempt = attempts.next_number(submitted=submitted)
        something_may_be_lost = ti.try_number > 1 and (not attempts.jobs or None in attempts.jobs)
        if something_may_be_lost:
            hook.play(outlive_orphans(patience=patience))
        job = self._submit(hook, ti, identity, submission_id_of(identity, attempt=attempt), limits)
        if store is not None:
            store.set(SUBMITTED, {"identity": identity, "attempt": attempt})
        return job

    def _submit(self, hook: RayJobHook, ti: Any, identity: str, submission_id: str, limits: Limits) -> RayJob:
        runtime_env = self._runtime_env(hook)
        body = submission_body(
            submission_id,
            self.entrypoint,
            identity=identity,
            ti=ti,
            runtime_env=runtime_env,
            metadata=self.metadata or {},
            reserved={
                "entrypoint_num_cpus": self.entrypoint_num_cpus,
                "entrypoint_num_gpus": self.entrypoint_num_gpus,
                "entrypoint_memory": self.entrypoint_memory,
                "entrypoint_resources": self.entrypoint_resources,
            },
        )
        if limits.deadline is not None and time.time() >= limits.deadline:
            raise JobTimeout(
                f"Ray job {submission_id}",
                reason=f"its deadline, {self.deadline}, passed before its submission",
            )
        self._submission_id = submission_id
        if self._killed:  # Airflow runs on_kill in the middle of whatever goes on, and returns here
            raise RemoteJobError(f"the task was ended before Ray job {submission_id} was submitted")
        self.log.info("Submitting Ray job %s: %s", submission_id, body["entrypoint"])
        job = hook.play(submit(body, patience=self.unreachable_timeout_seconds))
        if self._killed and self.cancel_on_kill and not self._left_alone:
            # The kill came while the submission was on its way, and found nothing to stop.
            self._stop(hook, submission_id)
        return job

    def _runtime_env(self, hook: RayJobHook) -> dict[str, Any]:
        """Return Ray's runtime environment, once the code that it names is stored in the cluster."""
        runtime_env = dict(self.runtime_env or {})
        if self.packages:
            if "working_dir" in runtime_env:
                raise InvalidJob("packages are the job's working_dir: runtime_env cannot name another")
            archive = archive_packages(self.packages)
            sent = hook.play(upload(archive, patience=self.unreachable_timeout_seconds))
            self.log.info("Code %s: %s", archive.uri, "sent" if sent else "already in the cluster")
            runtime_env["working_dir"] = archive.uri
        return runtime_env

    def _end_cleared(self, hook: RayJobHook, ti: Any) -> None:
        """End what a clear left alive: a job that nobody waited for, or whose triggerer was not told."""
        for tries, identity in enumerate(earlier_identities_of(ti), start=1):
            patience = self.unreachable_timeout_seconds
            for job in hook.play(find_attempts(identity, at_least=tries, patience=patience)).alive:
                self._end(hook, job, why="this task started it before it was cleared")

    def _end(self, hook: RayJobHook, job: RayJob, *, why: str) -> None:
        """Stop a job and make sure that it does nothing any more.

        :raises StateUnknown: if it goes on; nothing may be submitted beside it.
        """
        self.log.info("Stopping Ray job %s, which is %s: %s", job.submission_id, job.status, why)
        stopped = self._stop(hook, job.submission_id)
        if stopped is not None and stopped.status == "RUNNING":
            raise StateUnknown(f"Ray job {job.submission_id} was told to stop and is still RUNNING: {why}")

    def _stop(self, hook: RayJobHook, submission_id: str) -> RayJob | None:
        job = hook.play(stop(submission_id, patience=KILL_WAIT, wait=KILL_WAIT))
        state = job.status if job else "not known to Ray"
        self.log.info("Told Ray job %s to stop; it is %s", submission_id, state)
        return job


def _submitted(stored: Any, identity: str) -> int:
    """Return the last attempt that Ray is known to have taken; what was stored before a clear is another's."""
    return stored["attempt"] if isinstance(stored, dict) and stored.get("identity") == identity else 0
