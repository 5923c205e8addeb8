"""Wait for a Ray job that another task submitted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowSensorTimeout

from strandloop.errors import InvalidJob
from strandloop.hooks.ray_jobs import RayJobHook
from strandloop.links.ray_jobs import RayJobLink
from strandloop.ray_dialogue import find
from strandloop.ray_job import Outcome
from strandloop.ray_watch import watch
from strandloop.triggers.ray_jobs import RayJobTrigger

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context


class RayJobSensor(BaseSensorOperator):
    """Succeeds when the job succeeded and returns its record; fails when it ended in any other way.

    It does not own the job: neither its timeout nor a person who ends the sensor stops the job.

    :param job: the job record of a :class:`~strandloop.operators.ray_jobs.RayJobOperator`, or a submission
        id. (templated)
    :param ray_conn_id: see :class:`~strandloop.hooks.ray_jobs.RayJobHook`. (templated)
    :param deferrable: wait in the triggerer, where the job's log is followed too.
    :param unreachable_timeout_seconds: seconds without an answer from Ray until the task fails.
    """

    template_fields: Sequence[str] = ("job", "ray_conn_id")
    operator_extra_links = (RayJobLink(),)
    ui_color = "#e8f4fb"

    def __init__(
        self,
        *,
        job: dict[str, Any] | str,
        ray_conn_id: str = RayJobHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        unreachable_timeout_seconds: float = 300.0,
        poke_interval: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.job = job
        self.ray_conn_id = ray_conn_id
        self.deferrable = deferrable
        self.unreachable_timeout_seconds = unreachable_timeout_seconds

    def execute(self, context: Context) -> Any:
        """Wait in the triggerer, or here."""
        submission_id = self._submission_id()
        page = RayJobHook(self.ray_conn_id).dashboard().job_page(submission_id)
        RayJobLink().persist(context["ti"], url=page)
        if not self.deferrable:
            return super().execute(context)
        trigger = RayJobTrigger(
            submission_id,
            ray_conn_id=self.ray_conn_id,
            poll_interval_seconds=self.poke_interval,
            unreachable_timeout_seconds=self.unreachable_timeout_seconds,
            deadline=time.time() + self.timeout,
            stop_at_deadline=False,
            cancel_on_kill=False,
        )
        return self.defer(trigger=trigger, method_name="execute_complete")

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Turn what the trigger saw into the job record, or into the failure of this task."""
        outcome = Outcome.from_event(event)
        if outcome.end == "deadline":
            raise AirflowSensorTimeout(f"Ray job {outcome.submission_id}: {outcome.said}")
        return outcome.record().to_xcom()

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; the job's log is shown when it has ended."""
        hook, submission_id = RayJobHook(self.ray_conn_id), self._submission_id()
        patience = self.unreachable_timeout_seconds
        job = hook.play(find(submission_id, patience=patience))
        if job is not None and job.alive:
            self.log.info("Ray job %s is %s", submission_id, job.status)
            return PokeReturnValue(is_done=False)
        outcome = hook.play(watch(submission_id, poll=self.poke_interval, patience=patience))
        return PokeReturnValue(is_done=True, xcom_value=outcome.record().to_xcom())

    def _submission_id(self) -> str:
        job: Any = self.job
        if isinstance(job, dict):
            job = job.get("id") if job.get("system") == "ray" else ""
        if not job or not isinstance(job, str):
            raise InvalidJob(f"job: neither a job record nor a submission id of Ray: {self.job!r}")
        return job
