"""Waiting for a ParallelCluster cluster in the triggerer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from strandloop.hooks.parallel_cluster import ParallelClusterHook
from strandloop.pcluster_watch import ClusterPlan, wait_in_loop
from strandloop.trigger_grace import Grace


class ParallelClusterTrigger(BaseTrigger):
    """Fires once: when nothing of the cluster moves any more, it is gone, or nobody can tell.

    The event is :meth:`strandloop.pcluster_watch.ClusterOutcome.to_event`. It says nothing of how the cluster
    stands: the task looks again, for by then somebody else may have changed it.

    It has no ``on_kill``: a creation that is under way cannot be stopped, and what was made is the teardown's
    to delete, which runs too when the task is ended by hand.

    :param aws_conn_id: connection to AWS.
    :param region_name: as in :class:`~strandloop.hooks.parallel_cluster.ParallelClusterHook`.
    :param plan: what is waited for, field by field as in :class:`~strandloop.pcluster_watch.ClusterPlan`.
        A field that this version does not know is ignored: deferred tasks outlive deployments.
    """

    def __init__(self, aws_conn_id: str | None, *, region_name: str | None = None, **plan: Any) -> None:
        super().__init__()
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.plan = ClusterPlan.of(plan)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes an equal trigger elsewhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"aws_conn_id": self.aws_conn_id, "region_name": self.region_name, **self.plan.to_kwargs()},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the cluster, its stack's events going to the task log."""
        grace = Grace(self.task_instance)
        hook = ParallelClusterHook(self.aws_conn_id, self.region_name)
        outcome = await wait_in_loop(hook.pcluster, self.plan, say=lambda line: self.log.info("%s", line))
        await grace.over()
        yield TriggerEvent(outcome.to_event())
