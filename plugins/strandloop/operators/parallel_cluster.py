"""Clusters as Airflow tasks: one that ParallelCluster makes, or one that exists already."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import BaseOperator, Context

from strandloop.cluster_jobs import living_jobs, usable_nodes
from strandloop.errors import InvalidJob
from strandloop.hooks.parallel_cluster import ParallelClusterHook, describe, wants_stopped_fleet
from strandloop.hooks.slurm import SlurmHook
from strandloop.job_record import utc_now
from strandloop.links.parallel_cluster import CloudFormationStackLink, CloudWatchDashboardLink
from strandloop.pcluster import BadConfiguration, Conflict, NotFound, Throttled
from strandloop.pcluster_state import (
    FLEET_AT_REST,
    Cluster,
    ClusterBusy,
    ClusterFailed,
    ClusterUnclear,
    configuration_hash,
    differences,
    read_configuration,
)
from strandloop.pcluster_watch import ClusterOutcome, ClusterPlan, wait
from strandloop.run_tag import RunTag
from strandloop.ssh_address import SshAddress
from strandloop.triggers.parallel_cluster import ParallelClusterTrigger

EXISTING, PARALLELCLUSTER = "existing", "parallelcluster"


class _ClusterOperator(BaseOperator):
    """What creating and deleting share: look, take one step, wait until nothing moves, look again.

    :param cluster_name: name of the cluster; None or empty for the run's own,
        :attr:`strandloop.run_tag.RunTag.cluster_name`.
    :param ssh_conn_id: SSH connection that holds the private key of the cluster's key pair, and perhaps the
        user; its host does not count.
    :param aws_conn_id: connection to AWS.
    :param region_name: region of the cluster, where the connection does not name it.
    :param deferrable: whether it waits in the triggerer.
    :param poll_interval_seconds: seconds between two looks.
    :param timeout_seconds: the task fails after so long, and leaves the cluster to what goes on there.
    :param unanswered_timeout_seconds: the task fails if AWS gives no usable answer for so long: it throttles
        us, the credentials have expired, the connection is broken.
    """

    template_fields: Sequence[str] = ("cluster_name", "ssh_conn_id", "aws_conn_id", "region_name")
    operator_extra_links = (CloudFormationStackLink(), CloudWatchDashboardLink())
    ui_color = "#f3e9d7"

    def __init__(
        self,
        *,
        cluster_name: str | None = None,
        ssh_conn_id: str | None = SlurmHook.default_conn_name,
        aws_conn_id: str | None = "aws_default",
        region_name: str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        poll_interval_seconds: float = 30.0,
        timeout_seconds: float = 3600.0,
        unanswered_timeout_seconds: float = 600.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster_name = cluster_name
        self.ssh_conn_id = ssh_conn_id
        self.aws_conn_id = aws_conn_id
        self.region_name = region_name
        self.deferrable = deferrable
        self.poll_interval_seconds = poll_interval_seconds
        self.timeout_seconds = timeout_seconds
        self.unanswered_timeout_seconds = unanswered_timeout_seconds

    def execute(self, context: Context) -> Any:
        """Bring the cluster to where it should be, however it stands."""
        return self._go_on(context, None)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Take the trigger's event, and go on from how the cluster stands now."""
        return self._go_on(context, ClusterOutcome.from_event(event))

    def _go_on(self, context: Context, waited: ClusterOutcome | None) -> Any:
        hook = ParallelClusterHook(self.aws_conn_id, self.region_name)
        name = self.cluster_name or RunTag.of(context["ti"]).cluster_name
        while True:
            if waited is not None and waited.problem:
                raise (InvalidJob if waited.invalid else ClusterUnclear)(f"cluster {name}: {waited.problem}")
            doing, result = self._patiently(hook, name, context, waited)
            if doing is None:
                return result
            plan = ClusterPlan(
                name,
                doing,
                give_up_at=time.time() + self.timeout_seconds,
                poll_interval_seconds=self.poll_interval_seconds,
                unanswered_timeout_seconds=self.unanswered_timeout_seconds,
            )
            if self.deferrable:
                self.defer(
                    trigger=ParallelClusterTrigger(
                        self.aws_conn_id, region_name=self.region_name, **plan.to_kwargs()
                    ),
                    method_name="execute_complete",
                )
            waited = wait(hook.pcluster, plan, say=self.log.info)

    def _patiently(
        self, hook: ParallelClusterHook, name: str, context: Context, waited: ClusterOutcome | None
    ) -> tuple[str | None, Any]:
        """Take one step; where AWS says that it was asked too often, look again and take it then."""
        give_up_at = time.monotonic() + self.unanswered_timeout_seconds
        while True:
            try:
                cluster = describe(hook.pcluster(), name)
                if cluster is not None:
                    self._show_links(context, cluster)
                return self._step(hook, name, cluster, context, waited)
            except Throttled as error:
                if time.monotonic() > give_up_at:
                    raise
                self.log.info("%s; looking again", error)
                time.sleep(self.poll_interval_seconds)

    def _step(
        self,
        hook: ParallelClusterHook,
        name: str,
        cluster: Cluster | None,
        context: Context,
        waited: ClusterOutcome | None,
    ) -> tuple[str | None, Any]:
        """Do what is next: return what was begun and must be waited for, or None and the result."""
        raise NotImplementedError

    def _show_links(self, context: Context, cluster: Cluster) -> None:
        CloudFormationStackLink().persist(context["ti"], region=cluster.region, uid=cluster.uid)
        CloudWatchDashboardLink().persist(context["ti"], region=cluster.region, cluster_name=cluster.name)

    def _way_in(self, hook: ParallelClusterHook, cluster: Cluster) -> SshAddress:
        if not self.ssh_conn_id:
            raise InvalidJob(
                "the head node of a cluster is reached over SSH only: ssh_conn_id must name a connection that "
                "holds the private key of the cluster's key pair"
            )
        return hook.way_in(cluster, self.ssh_conn_id)

    def _refuse_if_busy(
        self, hook: ParallelClusterHook, cluster: Cluster, context: Context, *, what: str
    ) -> None:
        """Raise if jobs of others wait or run on a cluster."""
        own = RunTag.of(context["ti"])
        with SlurmHook(str(self._way_in(hook, cluster))) as slurm:
            jobs = living_jobs(slurm, f"cluster {cluster.name}")
        foreign = [str(job) for job in jobs if job.run != own]
        if foreign:
            raise ClusterBusy(
                f"cluster {cluster.name} is not {what}: others have {len(foreign)} jobs there: "
                f"{', '.join(foreign[:10])}{', ...' if len(foreign) > 10 else ''}"
            )


class ParallelClusterCreateOrUpdateOperator(_ClusterOperator):
    """Makes sure that a cluster of this configuration runs, and says how to get into it.

    A cluster that is not there is created; one that runs with another configuration is updated, its compute
    fleet stopped for that and started again where ParallelCluster wants it (not while others have jobs there);
    one that is right is left alone. So a retry, a cleared task and a second run go on from what they find,
    and two at once do it once: who comes second waits, then compares.

    Returns by XCom ``cluster_name``, ``cluster_uid`` (the stack's ARN), ``region``, ``head_node`` (its private
    address), ``head_instance_type``, ``configuration_hash``, ``created_at``, ``ready_at``, ``nodes`` (usable
    ones), and ``ssh_conn_id``: what Slurm tasks take as theirs, see :mod:`strandloop.ssh_address`.

    :param configuration: the cluster configuration as YAML text.
    :param delete_on_failure: whether a cluster whose creation failed is deleted, by the task that sees it fail
        or by the next that finds it. If not, it stays to be looked at, and fails every task that finds it.
    """

    template_fields: Sequence[str] = (*_ClusterOperator.template_fields, "configuration")
    template_fields_renderers = {"configuration": "yaml"}  # noqa: RUF012

    def __init__(self, *, configuration: str, delete_on_failure: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.configuration = configuration
        self.delete_on_failure = delete_on_failure

    def _step(
        self,
        hook: ParallelClusterHook,
        name: str,
        cluster: Cluster | None,
        context: Context,
        waited: ClusterOutcome | None,
    ) -> tuple[str | None, Any]:
        if cluster is None:
            if waited is not None and waited.doing != "delete":
                raise ClusterFailed(f"cluster {name} is gone: somebody has deleted it while this task waited")
            return self._create(hook, name), None
        if cluster.moving:
            self.log.info("%s: waiting for what goes on there", cluster)
            return "delete" if cluster.stack_status == "DELETE_IN_PROGRESS" else "wait", None
        if not cluster.whole:
            return self._clear_away(hook, cluster, waited), None
        wanted = read_configuration(self.configuration)
        if difference := differences(hook.configuration(cluster), wanted):
            if cluster.status == "UPDATE_FAILED" and waited is not None and waited.doing == "update":
                raise ClusterFailed(
                    f"cluster {name} was not updated, it runs as before. What failed first: {waited.failure}"
                )
            self.log.info("%s; it runs with another configuration:\n%s", cluster, "\n".join(difference))
            return self._update(hook, cluster, context), None
        if cluster.fleet in FLEET_AT_REST:
            self.log.info("%s: starting the compute fleet", cluster)
            return _set_fleet(hook, name, "START_REQUESTED"), None
        return None, self._ready(hook, cluster, configuration_hash(wanted))

    def _create(self, hook: ParallelClusterHook, name: str) -> str:
        self.log.info("creating cluster %s", name)
        try:
            # What has failed stays as it is until it was looked at, and roll-backs hide what failed.
            hook.pcluster().call(
                "create_cluster",
                cluster_name=name,
                cluster_configuration=self.configuration,
                rollback_on_failure=False,
            )
        except Conflict as error:
            self.log.info("%s: somebody else is at it", error)
            return "wait"
        return "create"

    def _update(self, hook: ParallelClusterHook, cluster: Cluster, context: Context) -> str:
        try:
            hook.pcluster().call(
                "update_cluster", cluster_name=cluster.name, cluster_configuration=self.configuration
            )
        except Conflict as error:
            self.log.info("%s: somebody else is at it", error)
            return "wait"
        except BadConfiguration as error:
            now = describe(hook.pcluster(), cluster.name)
            if now is None or now.moving:  # that may be why it was refused
                self.log.info("%s: somebody else is at it", error)
                return "wait"
            if not wants_stopped_fleet(error) or cluster.fleet == "STOPPED":
                raise
            self.log.info("%s", error)
            self._refuse_if_busy(hook, cluster, context, what="updated, for that would end jobs")
            self.log.info("%s: stopping the compute fleet for the update", cluster)
            return _set_fleet(hook, cluster.name, "STOP_REQUESTED")
        return "update"

    def _clear_away(self, hook: ParallelClusterHook, cluster: Cluster, waited: ClusterOutcome | None) -> str:
        """Deal with a cluster that was not created, or not deleted, to the end."""
        seen = waited is not None and waited.doing in ("create", "wait")
        failure = (waited.failure if waited else "") or cluster.failure or "see the stack's events"
        words = f"cluster {cluster.name} is {cluster.stack_status}. What failed first: {failure}"
        gone_wrong_for_good = cluster.status != "CREATE_FAILED" or (waited and waited.doing == "delete")
        if not self.delete_on_failure or gone_wrong_for_good:
            raise ClusterFailed(f"{words}. It is left as it is; delete it before this task runs again")
        self.log.info("deleting cluster %s, which is %s", cluster.name, cluster.stack_status)
        _delete(hook, cluster.name)
        if seen:
            raise ClusterFailed(f"{words}. It is being deleted")
        return "delete"

    def _ready(self, hook: ParallelClusterHook, cluster: Cluster, digest: str) -> dict[str, Any]:
        address = self._way_in(hook, cluster)
        with SlurmHook(str(address)) as slurm:
            _, nodes = usable_nodes(slurm, f"cluster {cluster.name}")
        self.log.info("%s, with %d nodes that can run jobs, behind %s", cluster, len(nodes), address.in_words)
        return {
            "cluster": PARALLELCLUSTER,
            "ssh_conn_id": str(address),
            "cluster_name": cluster.name,
            "cluster_uid": cluster.uid,
            "region": cluster.region,
            "head_node": address.host,
            "head_instance_type": cluster.head_node.get("instanceType"),
            "configuration_hash": digest,
            "created_at": cluster.created_at,
            "ready_at": utc_now(),
            "nodes": len(nodes),
        }


class ParallelClusterDeleteOperator(_ClusterOperator):
    """Deletes a cluster and waits until it is gone; meant as the teardown of the task that made it.

    It refuses while jobs wait or run there that are not of this DAG run: that others use the cluster too is
    seen by the jobs' comments, see :class:`strandloop.run_tag.RunTag`.

    :param even_if_busy: delete it whoever has jobs there.
    """

    template_fields: Sequence[str] = (*_ClusterOperator.template_fields, "even_if_busy")

    def __init__(self, *, even_if_busy: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.even_if_busy = even_if_busy

    def _step(
        self,
        hook: ParallelClusterHook,
        name: str,
        cluster: Cluster | None,
        context: Context,
        waited: ClusterOutcome | None,
    ) -> tuple[str | None, Any]:
        if cluster is None:
            self.log.info("there is no cluster %s (any more)", name)
            return None, None
        if cluster.stack_status == "DELETE_IN_PROGRESS":
            return "delete", None
        if waited is not None and cluster.stack_status == "DELETE_FAILED":
            raise ClusterFailed(
                f"cluster {name} was not deleted to the end, and what is left of it costs money. "
                f"What failed first: {waited.failure or 'see the events of its stack'}"
            )
        # Where there is no compute fleet at work, there are no jobs to end.
        if cluster.whole and cluster.fleet != "STOPPED" and not self.even_if_busy:
            self._refuse_if_busy(
                hook, cluster, context, what="deleted (even_if_busy deletes it all the same)"
            )
        self.log.info("%s: deleting it", cluster)
        _delete(hook, name)
        return "delete", None


class EnsureClusterOperator(ParallelClusterCreateOrUpdateOperator):
    """Makes sure that a Slurm cluster can take jobs, and says which one it is.

    With ``cluster="existing"`` it uses the Slurm behind ``ssh_conn_id`` as it is, and fails if that has
    no node that can run a job; the XCom is ``{"cluster", "ssh_conn_id", "cluster_name", "nodes"}`` then.
    With ``cluster="parallelcluster"`` it is a :class:`ParallelClusterCreateOrUpdateOperator`.

    :param cluster: ``existing`` or ``parallelcluster``.
    :param ssh_conn_id: ``existing``: connection to the login node; None or empty where Airflow runs on the
        login node. ``parallelcluster``: connection that holds the private key.
    """

    template_fields: Sequence[str] = (*ParallelClusterCreateOrUpdateOperator.template_fields, "cluster")

    def __init__(self, *, cluster: str = EXISTING, configuration: str = "", **kwargs: Any) -> None:
        super().__init__(configuration=configuration, **kwargs)
        self.cluster = cluster

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask the existing cluster for its name and nodes, or make one."""
        if not exists_already(self.cluster):
            return super().execute(context)
        where = f"connection {self.ssh_conn_id!r}"
        self.log.info("Using the Slurm behind %s as it is: nothing is created", where)
        with SlurmHook(self.ssh_conn_id) as hook:
            name, usable = usable_nodes(hook, where)
        self.log.info("Cluster %s has %d usable nodes: %s", name, len(usable), ", ".join(usable))
        return {
            "cluster": self.cluster,
            "ssh_conn_id": self.ssh_conn_id,
            "cluster_name": name,
            "nodes": len(usable),
        }


class ReleaseClusterOperator(ParallelClusterDeleteOperator):
    """Gives back what :class:`EnsureClusterOperator` made; a cluster that existed stays as it is.

    :param cluster: ``existing`` or ``parallelcluster``.
    """

    template_fields: Sequence[str] = (*ParallelClusterDeleteOperator.template_fields, "cluster")

    def __init__(self, *, cluster: str = EXISTING, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster

    def execute(self, context: Context) -> None:
        """Say that nothing is deleted, or delete it."""
        if not exists_already(self.cluster):
            return super().execute(context)
        self.log.info(
            "The Slurm behind connection %r existed before and is left as it is: nothing is deleted",
            self.ssh_conn_id,
        )
        return None


def exists_already(cluster: str) -> bool:
    """Whether this choice is a cluster that exists.

    :raises InvalidJob: for a choice that there is not.
    """
    if cluster not in (EXISTING, PARALLELCLUSTER):
        raise InvalidJob(
            f"cluster={cluster!r} is not known: the choices are {EXISTING!r}, a running Slurm, and "
            f"{PARALLELCLUSTER!r}, one that is made for the run"
        )
    return cluster == EXISTING


def _set_fleet(hook: ParallelClusterHook, name: str, status: str) -> str:
    hook.pcluster().call("update_compute_fleet", cluster_name=name, status=status)
    return "fleet"


def _delete(hook: ParallelClusterHook, name: str) -> None:
    try:
        hook.pcluster().call("delete_cluster", cluster_name=name)
    except NotFound:
        return  # somebody was quicker
