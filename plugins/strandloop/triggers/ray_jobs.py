"""Waiting for a Ray job in the triggerer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from strandloop.errors import InvalidJob
from strandloop.hooks.ray_jobs import RayJobHook
from strandloop.ray_bookmark import Bookmark, XComShelf
from strandloop.ray_dialogue import stop
from strandloop.ray_job import Outcome
from strandloop.ray_limits import Limits
from strandloop.ray_watch import watch
from strandloop.trigger_grace import Grace

# The triggerer gives on_kill 30 seconds (``[triggerer] on_kill_timeout``).
KILL_WAIT = 25.0


class RayJobTrigger(BaseTrigger):
    """Fires once, with the job's outcome, when the job ended or nothing more can be learned about it.

    The event is :meth:`strandloop.ray_job.Outcome.to_event`; it carries all that the task needs. How far the
    log was passed on is kept as an XCom of the task (``ray_job_read``): a restarted triggerer goes on there.

    :param submission_id: the job.
    :param ray_conn_id: connection to the dashboard.
    :param poll_interval_seconds: seconds between two looks.
    :param unreachable_timeout_seconds: seconds without an answer until the state counts as unknown.
    :param deadline: seconds since the epoch; absolute, so that no restart extends it.
    :param stop_at_deadline: whether the job is stopped at a limit, or only the waiting ends.
    :param cancel_on_kill: whether the job is stopped when a person ends or clears the deferred task.
    :param queue_timeout_seconds: see :class:`~strandloop.ray_limits.Limits`.
    :param run_timeout_seconds: see :class:`~strandloop.ray_limits.Limits`.
    :param bookmark: how far an earlier try followed the job (:meth:`strandloop.ray_bookmark.Bookmark.to_json`).
    :param later: arguments of a later version, which are ignored: deferred tasks outlive deployments.
    """

    def __init__(
        self,
        submission_id: str,
        *,
        ray_conn_id: str,
        poll_interval_seconds: float,
        unreachable_timeout_seconds: float,
        deadline: float | None = None,
        stop_at_deadline: bool = True,
        cancel_on_kill: bool = True,
        queue_timeout_seconds: float | None = None,
        run_timeout_seconds: float | None = None,
        bookmark: dict[str, Any] | None = None,
        **later: Any,
    ) -> None:
        super().__init__()
        self.submission_id = submission_id
        self.ray_conn_id = ray_conn_id
        self.poll_interval_seconds = poll_interval_seconds
        self.unreachable_timeout_seconds = unreachable_timeout_seconds
        self.deadline = deadline
        self.stop_at_deadline = stop_at_deadline
        self.cancel_on_kill = cancel_on_kill
        self.queue_timeout_seconds = queue_timeout_seconds
        self.run_timeout_seconds = run_timeout_seconds
        self.bookmark = bookmark

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes an equal trigger elsewhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "submission_id": self.submission_id,
                "ray_conn_id": self.ray_conn_id,
                "poll_interval_seconds": self.poll_interval_seconds,
                "unreachable_timeout_seconds": self.unreachable_timeout_seconds,
                "deadline": self.deadline,
                "stop_at_deadline": self.stop_at_deadline,
                "cancel_on_kill": self.cancel_on_kill,
                "queue_timeout_seconds": self.queue_timeout_seconds,
                "run_timeout_seconds": self.run_timeout_seconds,
                "bookmark": self.bookmark,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the job, its log going to the task log."""
        grace = Grace(self.task_instance)
        shelf = XComShelf(self.task_instance, say=self.log.info)
        bookmark = await shelf.read() or Bookmark.from_json(self.bookmark)
        try:
            outcome = await RayJobHook(self.ray_conn_id).aplay(
                watch(
                    self.submission_id,
                    poll=self.poll_interval_seconds,
                    patience=self.unreachable_timeout_seconds,
                    limits=Limits(
                        self.deadline,
                        queue_timeout_seconds=self.queue_timeout_seconds,
                        run_timeout_seconds=self.run_timeout_seconds,
                        stop=self.stop_at_deadline,
                    ),
                    bookmark=bookmark,
                ),
                keep=shelf.keep,
            )
        except InvalidJob as error:  # the connection cannot work, which says nothing about the job
            outcome = Outcome("unknown", self.submission_id, said=str(error), bookmark=bookmark)
        await grace.over()
        yield TriggerEvent(outcome.to_event())

    async def on_kill(self) -> None:
        """Stop the job and wait until it is gone: a person ended the task (Airflow 3.3 and later)."""
        if not self.cancel_on_kill:
            return
        job = await RayJobHook(self.ray_conn_id).aplay(
            stop(self.submission_id, patience=KILL_WAIT, wait=KILL_WAIT)
        )
        self.log.info("Ray job %s: %s", self.submission_id, job.status if job else "not known to Ray")
