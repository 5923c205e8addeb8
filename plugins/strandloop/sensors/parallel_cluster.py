"""Waiting for a ParallelCluster cluster that another task, or a person, makes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseSensorOperator, Context, PokeReturnValue

from strandloop.errors import InvalidJob
from strandloop.hooks.parallel_cluster import ParallelClusterHook, describe
from strandloop.pcluster_state import ClusterFailed, ClusterUnclear
from strandloop.pcluster_watch import ClusterOutcome, ClusterPlan
from strandloop.triggers.parallel_cluster import ParallelClusterTrigger


class ParallelClusterSensor(BaseSensorOperator):
    """Waits until a cluster is there and whole; returns its name, uid, region and state of its compute fleet.

    A cluster that does not exist yet is waited for; one whose creation failed, fails the task.

    :param cluster_name: name of the cluster.
    :param aws_conn_id: connection to AWS.
    :param region_name: region of the cluster, where the connection does not name it.
    :param deferrable: whether it waits in the triggerer.
    :param unanswered_timeout_seconds: the deferred task fails if AWS gives no usable answer for so long.
    :param poke_interval: seconds between two looks.
    """

    template_fields: Sequence[str] = ("cluster_name", "aws_conn_id", "region_name")

    def __init__(
        self,
        *,
        cluster_name: str,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        unanswered_timeout_seconds: float = 600.0,
        poke_interval: float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.cluster_name = cluster_name
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.deferrable = deferrable
        self.unanswered_timeout_seconds = unanswered_timeout_seconds

    def execute(self, context: Context) -> Any:
        """Wait here, or in the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        plan = ClusterPlan(
            self.cluster_name,
            "wait",
            give_up_at=time.time() + self.timeout,
            poll_interval_seconds=self.poke_interval,
            unanswered_timeout_seconds=self.unanswered_timeout_seconds,
            absent_ends=False,
        )
        return self.defer(
            trigger=ParallelClusterTrigger(
                self.aws_conn_id, region_name=self.region_name, **plan.to_kwargs()
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the trigger's event, and look how the cluster stands now."""
        outcome = ClusterOutcome.from_event(event)
        if outcome.problem:
            raise (InvalidJob if outcome.invalid else ClusterUnclear)(
                f"cluster {self.cluster_name}: {outcome.problem}"
            )
        found = self.poke(context)
        return found.xcom_value if found.is_done else self.execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        pcluster = ParallelClusterHook(self.aws_conn_id, self.region_name).pcluster()
        cluster = describe(pcluster, self.cluster_name)
        if cluster is None or cluster.moving:
            return PokeReturnValue(is_done=False)
        if not cluster.whole:
            raise ClusterFailed(f"{cluster} {cluster.failure}".strip())
        found = {
            "cluster_name": cluster.name,
            "cluster_uid": cluster.uid,
            "region": cluster.region,
            "fleet": cluster.fleet,
        }
        return PokeReturnValue(is_done=True, xcom_value=found)
