"""Waiting for Slurm jobs that other tasks have submitted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue

from strandloop.errors import InvalidJob
from strandloop.hooks.slurm import SlurmHook
from strandloop.job_identity import identity_of
from strandloop.slurm_outcome import Outcome
from strandloop.slurm_waiting import look, settle
from strandloop.slurm_watch import SlurmWatch, WatchPlan
from strandloop.triggers.slurm import SlurmJobTrigger


class SlurmJobSensor(BaseSensorOperator):
    """Waits for a job and passes its log on; returns the finished job's record by XCom.

    It fails if the job was seen to fail; of a job array, naming the elements that did not succeed, once
    none is alive any more. Of an array it passes on not the logs but the changes of its elements' states.

    Its ``timeout`` ends the waiting and leaves the job alone; the two limits below cancel the job. Ending
    the sensor by hand leaves the job alone too, unless ``cancel_on_kill`` is set.

    :param job: the reference that :class:`~strandloop.operators.slurm.SlurmJobOperator` returned.
    :param ssh_conn_id: connection to the login node, with the ``host_key`` extra; None or empty where Airflow
        runs on the login node itself.
    :param deferrable: whether it waits in the triggerer.
    :param queue_timeout_seconds: the job is cancelled if it has waited so long in the queue, see
        :class:`~strandloop.slurm_watch.WatchPlan`.
    :param run_timeout_seconds: the job, or one element of an array, is cancelled if it has run so long.
    :param unknown_timeout_seconds: the task fails if nobody can tell so long how the job stands. In
        ``reschedule`` mode, which keeps no memory between two looks, ``timeout`` alone bounds that.
    :param cancel_on_kill: whether ending or clearing the deferred sensor by hand cancels the job.
    :param poke_interval: seconds between two looks at the job.
    """

    template_fields: Sequence[str] = ("job", "ssh_conn_id")

    def __init__(
        self,
        *,
        job: dict[str, Any],
        ssh_conn_id: str | None = SlurmHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        queue_timeout_seconds: float | None = None,
        run_timeout_seconds: float | None = None,
        unknown_timeout_seconds: float = 600.0,
        cancel_on_kill: bool = False,
        poke_interval: float = 15.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.job = job
        self.ssh_conn_id = ssh_conn_id
        self.deferrable = deferrable
        self.queue_timeout_seconds = queue_timeout_seconds
        self.run_timeout_seconds = run_timeout_seconds
        self.unknown_timeout_seconds = unknown_timeout_seconds
        self.cancel_on_kill = cancel_on_kill
        self._watch: SlurmWatch | None = None

    def execute(self, context: Context) -> Any:
        """Wait here, or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        return self.defer(
            trigger=SlurmJobTrigger(
                self.ssh_conn_id,
                cancel_on_kill=self.cancel_on_kill,
                **self._plan(context).to_kwargs(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Take the trigger's event: the job's record, or the reason for failing."""
        with SlurmHook(self.ssh_conn_id) as hook:
            return settle(hook.run, Outcome.from_event(event))

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once; all log that stands there is passed on."""
        if self._watch is None:
            self._watch = SlurmWatch(self._plan(context), log=self.log.info)
        with SlurmHook(self.ssh_conn_id) as hook:
            outcome = look(hook.run, self._watch)
            while outcome is None and self._watch.behind:
                outcome = look(hook.run, self._watch)
            if outcome is None:
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=True, xcom_value=settle(hook.run, outcome))

    def _plan(self, context: Context) -> WatchPlan:
        if not isinstance(self.job, dict) or self.job.get("system") != "slurm":
            raise InvalidJob(f"job must be the reference of a Slurm job, not {self.job!r}")
        ti = context["ti"]
        return WatchPlan(
            self.job,
            reader=f"{identity_of(ti)[:8]}-{ti.try_number}",
            poll_interval_seconds=self.poke_interval,
            queue_timeout_seconds=self.queue_timeout_seconds,
            run_timeout_seconds=self.run_timeout_seconds,
            unknown_timeout_seconds=self.unknown_timeout_seconds,
        )
