"""The cluster of a batch: today one that exists already, behind an SSH connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import BaseOperator, Context

from strandloop import slurm_answers, slurm_commands
from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.hooks.slurm import SlurmHook

EXISTING = "existing"


class EnsureClusterOperator(BaseOperator):
    """Makes sure that a Slurm cluster can take jobs, and says which one it is.

    With ``cluster="existing"`` it uses the Slurm behind ``ssh_conn_id`` as it is, and fails if that has
    no node that can run a job. Returns ``{"cluster", "ssh_conn_id", "cluster_name", "nodes"}`` by XCom;
    ``nodes`` counts the usable ones.

    :param cluster: ``existing``.
    :param ssh_conn_id: connection to the login node; None or empty where Airflow runs on the login node.
    """

    template_fields: Sequence[str] = ("cluster", "ssh_conn_id")

    def __init__(
        self, *, cluster: str = EXISTING, ssh_conn_id: str | None = SlurmHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.ssh_conn_id = ssh_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Ask the cluster for its name and its nodes."""
        require_existing(self.cluster)
        self.log.info("Using the Slurm behind connection %r as it is: nothing is created", self.ssh_conn_id)
        with SlurmHook(self.ssh_conn_id) as hook:
            config, sinfo = hook.run(slurm_commands.controller()), hook.run(slurm_commands.nodes())
        for answer in (config, sinfo):
            if answer.rc != 0:
                raise ConnectionBroken(
                    f"connection {self.ssh_conn_id!r}: Slurm does not answer "
                    f"(exit status {answer.rc}): {answer.text}"
                )
        nodes = slurm_answers.parse_nodes(sinfo.stdout.decode("utf-8", "replace"))
        usable = sorted(name for name, node in nodes.items() if node.usable)
        if not usable:
            states = (
                ", ".join(f"{name} is {node.state}" for name, node in sorted(nodes.items())) or "no nodes"
            )
            raise ConnectionBroken(
                f"connection {self.ssh_conn_id!r}: no node can run a job ({states}). "
                "Look at 'sinfo --list-reasons' on the login node"
            )
        name = slurm_answers.cluster_name(config.stdout.decode("utf-8", "replace"))
        self.log.info("Cluster %s has %d usable nodes: %s", name, len(usable), ", ".join(usable))
        return {
            "cluster": self.cluster,
            "ssh_conn_id": self.ssh_conn_id,
            "cluster_name": name,
            "nodes": len(usable),
        }


class ReleaseClusterOperator(BaseOperator):
    """Gives back what :class:`EnsureClusterOperator` made; a cluster that existed stays as it is.

    :param cluster: ``existing``.
    :param ssh_conn_id: connection to the login node; None or empty where Airflow runs on the login node.
    """

    template_fields: Sequence[str] = ("cluster", "ssh_conn_id")

    def __init__(
        self, *, cluster: str = EXISTING, ssh_conn_id: str | None = SlurmHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.ssh_conn_id = ssh_conn_id

    def execute(self, context: Context) -> None:
        """Say that nothing is deleted."""
        require_existing(self.cluster)
        self.log.info(
            "The Slurm behind connection %r existed before and is left as it is: nothing is deleted",
            self.ssh_conn_id,
        )


def require_existing(cluster: str) -> None:
    """Refuse any cluster that would have to be created.

    :raises InvalidJob: for a value other than ``existing``.
    """
    if cluster != EXISTING:
        raise InvalidJob(
            f"cluster={cluster!r} is not known: the only choice is {EXISTING!r}, a running Slurm"
        )
