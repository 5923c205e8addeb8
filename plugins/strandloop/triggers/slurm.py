"""Waiting for a Slurm job in the triggerer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from strandloop.hooks.slurm import AsyncSlurmHook
from strandloop.slurm_waiting import cancel_in_loop, wait_in_loop
from strandloop.slurm_watch import WatchPlan
from strandloop.trigger_grace import Grace

# The triggerer gives on_kill 30 seconds (``[triggerer] on_kill_timeout``).
KILL_WAIT = 25.0


class SlurmJobTrigger(BaseTrigger):
    """Fires once, with the job's outcome, when the job ended, a limit passed, or nobody can tell.

    The event is :meth:`strandloop.slurm_watch.Outcome.to_event`; it carries all that the task needs.
    How far the log was read is kept on the cluster, and both limits count from times that Slurm or the
    record carry: a restarted triggerer goes on where the last one stopped.

    :param ssh_conn_id: connection to the login node; None or empty where Airflow runs on the login node.
    :param cancel_on_kill: whether the job is cancelled when a person ends or clears the deferred task.
    :param plan: what is waited for, field by field as in :class:`~strandloop.slurm_watch.WatchPlan`.
        A field that this version does not know is ignored: deferred tasks outlive deployments.
    """

    def __init__(self, ssh_conn_id: str | None, *, cancel_on_kill: bool = True, **plan: Any) -> None:
        super().__init__()
        self.ssh_conn_id = ssh_conn_id
        self.cancel_on_kill = cancel_on_kill
        known = {field.name for field in fields(WatchPlan)}
        self.plan = WatchPlan(**{name: value for name, value in plan.items() if name in known})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes an equal trigger elsewhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "ssh_conn_id": self.ssh_conn_id,
                "cancel_on_kill": self.cancel_on_kill,
                **self.plan.to_kwargs(),
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the job, its log going to the task log."""
        grace = Grace(self.task_instance)
        async with AsyncSlurmHook(self.ssh_conn_id) as hook:
            outcome = await wait_in_loop(hook, self.plan, say=lambda line: self.log.info("%s", line))
        await grace.over()
        yield TriggerEvent(outcome.to_event())

    async def on_kill(self) -> None:
        """Cancel the job and wait until it is gone: a person ended the task (Airflow 3.3 and later)."""
        if not self.cancel_on_kill:
            return
        name = self.plan.record["name"]
        async with AsyncSlurmHook(self.ssh_conn_id) as hook:
            gone = await cancel_in_loop(hook, name, patience=KILL_WAIT)
        self.log.info("Slurm job %s was cancelled%s", name, "" if gone else ", and is still ending")
