"""Run a Ray job as an Airflow task."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowFailException

from strandloop.code_archive import archive_packages
from strandloop.errors import InvalidJob, JobFailed, StateUnknown
from strandloop.hooks.ray_jobs import RayJobHook
from strandloop.job_identity import earlier_identities_of, identity_of
from strandloop.links.ray_jobs import RayJobLink
from strandloop.ray_dialogue import look_up, stop, submit, upload, watch
from strandloop.ray_job import Outcome, RayJob, submission_id_of
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
    :param poll_interval_seconds: seconds between two looks at the job and its log.
    :param run_timeout_seconds: limit of one attempt, from its submission (by the head's clock) to its end.
        The job is stopped at it; no restart of Airflow and no crash of the worker extends it.
    :param unreachable_timeout_seconds: seconds without an answer from Ray until the task fails.
    :param cancel_on_kill: stop the job when a person ends or clears the task. Airflow 3.2 does not tell a
        deferred task that it was ended: there only clearing it does.
    :param no_retry_exit_codes: exit codes by which the driver says that a retry cannot help.
    """

    template_fields: Sequence[str] = ("entrypoint", "runtime_env", "metadata", "ray_conn_id")
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
        poll_interval_seconds: float = 5.0,
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
        self.poll_interval_seconds = poll_interval_seconds
        self.run_timeout_seconds = run_timeout_seconds
        self.unreachable_timeout_seconds = unreachable_timeout_seconds
        self.cancel_on_kill = cancel_on_kill
        self.no_retry_exit_codes = tuple(no_retry_exit_codes)
        self._hook: RayJobHook | None = None
        self._submission_id: str | None = None
        self._killed = False

    def execute(self, context: Context) -> dict[str, Any]:
        """Find or submit the job, then wait for it."""
        self._hook = RayJobHook(self.ray_conn_id)
        job = self._find_or_submit(self._hook, context)
        RayJobLink().persist(context["ti"], url=self._hook.dashboard().job_page(job.submission_id))
        if not self.wait_for_completion:
            return job.record().to_xcom()
        limit = self.run_timeout_seconds
        deadline = None if limit is None else job.submitted_ms / 1000 + limit
        if self.deferrable and job.alive:
            trigger = RayJobTrigger(
                job.submission_id,
                ray_conn_id=self.ray_conn_id,
                poll_interval_seconds=self.poll_interval_seconds,
                unreachable_timeout_seconds=self.unreachable_timeout_seconds,
                deadline=deadline,
                cancel_on_kill=self.cancel_on_kill,
            )
            self.defer(trigger=trigger, method_name="execute_complete")
        outcome = self._hook.play(
            watch(
                job.submission_id,
                poll=self.poll_interval_seconds,
                patience=self.unreachable_timeout_seconds,
                deadline=deadline,
            )
        )
        return self._result(outcome)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Turn what the trigger saw into the job record, or into the failure of this task."""
        return self._result(Outcome.from_event(event))

    def _result(self, outcome: Outcome) -> dict[str, Any]:
        try:
            return outcome.record().to_xcom()
        except JobFailed as error:
            if error.exit_code in self.no_retry_exit_codes:
                raise AirflowFailException(str(error)) from error
            raise

    def on_kill(self) -> None:
        """Stop the job and wait until it is gone. Runs in a signal handler, in the middle of `execute`."""
        self._killed = True
        if self._hook is not None and self._submission_id is not None and self.cancel_on_kill:
            self._stop(self._hook, self._submission_id)

    def _find_or_submit(self, hook: RayJobHook, context: Context) -> RayJob:
        patience = self.unreachable_timeout_seconds
        identity = identity_of(context["ti"])
        store = context.get("task_state_store")
        stored = store.get(SUBMITTED) if store is not None else None
        if self.cancel_on_kill:
            for name in earlier_identities_of(context["ti"]):
                self._stop_cleared(hook, name, submitted=_submitted(stored, name))
        submitted = _submitted(stored, identity)
        attempt, job = hook.play(look_up(identity, submitted=submitted, patience=patience))
        self._submission_id = submission_id_of(identity, attempt=attempt)
        if job is None:
            body = self._submission(hook, context["ti"], identity)
            self.log.info("Submitting Ray job %s: %s", self._submission_id, body["entrypoint"])
            job = hook.play(submit(body, patience=patience))
            if self._killed and self.cancel_on_kill:
                # The kill came while the submission was on its way, and found nothing to stop.
                self._stop(hook, self._submission_id)
        else:
            self.log.info("Ray job %s was submitted before and is %s", job.submission_id, job.status)
        if store is not None:
            store.set(SUBMITTED, {"identity": identity, "attempt": attempt})
        return job

    def _submission(self, hook: RayJobHook, ti: Any, identity: str) -> dict[str, Any]:
        """Return the body of the submission, once the code that it names is stored in the cluster."""
        runtime_env = dict(self.runtime_env or {})
        if self.packages:
            if "working_dir" in runtime_env:
                raise InvalidJob("packages are the job's working_dir: runtime_env cannot name another")
            archive = archive_packages(self.packages)
            sent = hook.play(upload(archive, patience=self.unreachable_timeout_seconds))
            self.log.info("Code %s: %s", archive.uri, "sent" if sent else "already in the cluster")
            runtime_env["working_dir"] = archive.uri
        command = self.entrypoint if isinstance(self.entrypoint, str) else shlex.join(self.entrypoint)
        who = {
            "job_name": f"{ti.dag_id}.{ti.task_id}",
            "identity": identity,
            "run_id": ti.run_id,
            "map_index": str(ti.map_index),
            "try_number": str(ti.try_number),
        }
        body = {
            "submission_id": self._submission_id,
            "entrypoint": command,
            "runtime_env": runtime_env,
            "metadata": {**who, **(self.metadata or {})},
            "entrypoint_num_cpus": self.entrypoint_num_cpus,
            "entrypoint_num_gpus": self.entrypoint_num_gpus,
            "entrypoint_memory": self.entrypoint_memory,
            "entrypoint_resources": self.entrypoint_resources,
        }
        return {key: value for key, value in body.items() if value is not None}

    def _stop_cleared(self, hook: RayJobHook, identity: str, *, submitted: int) -> None:
        """End what a clear left alive: a job that nobody waited for, or whose triggerer was not told."""
        patience = self.unreachable_timeout_seconds
        _, job = hook.play(look_up(identity, submitted=submitted, patience=patience))
        if job is None or not job.alive:
            return
        stopped = self._stop(hook, job.submission_id)
        if stopped is not None and stopped.alive:
            raise StateUnknown(
                f"Ray job {job.submission_id}, which this task started before it was cleared, was told to stop "
                f"and is still {stopped.status}"
            )

    def _stop(self, hook: RayJobHook, submission_id: str) -> RayJob | None:
        job = hook.play(stop(submission_id, patience=KILL_WAIT, wait=KILL_WAIT))
        state = job.status if job else "not known to Ray"
        self.log.info("Told Ray job %s to stop; it is %s", submission_id, state)
        return job


def _submitted(stored: Any, identity: str) -> int:
    """Return the last attempt that Ray is known to have taken; what was stored before a clear is another's."""
    return stored["attempt"] if isinstance(stored, dict) and stored.get("identity") == identity else 0
