"""ParallelCluster over an AWS connection: clusters, their stack events, and the way into their head nodes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import httpx
from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook
from botocore.exceptions import BotoCoreError, ClientError

from strandloop.errors import ConnectionBroken, InvalidJob
from strandloop.pcluster import NotFound, Pcluster, PclusterFailed
from strandloop.pcluster_state import Cluster, StackEvent, read_configuration
from strandloop.ssh_address import SshAddress

#: Who logs in where the connection with the key does not say it; that of Amazon Linux.
DEFAULT_USER = "ec2-user"

#: What a head node prints once, when it starts for the first time.
_HOST_KEYS = re.compile(
    r"-----BEGIN SSH HOST KEY KEYS-----\s*(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL
)
_HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp\d+|ssh-rsa) ([A-Za-z0-9+/]+={0,2})")
_PREFERRED = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")

_FETCH_TIMEOUT = 30.0


class ParallelClusterHook(AwsGenericHook[Any]):
    """Speaks with AWS ParallelCluster, and with EC2 about its head nodes.

    The connection has type ``aws``; it is read once. Where it names a role, that is assumed anew for each call,
    so credentials that expire are replaced. They reach ParallelCluster by its environment only.

    All its methods block.

    :param aws_conn_id: connection to AWS; None for the credentials of the environment.
    :param region_name: region of the clusters; the connection's, or the environment's, where it is None.
    """

    def __init__(self, aws_conn_id: str | None = "aws_default", region_name: str | None = None) -> None:
        super().__init__(aws_conn_id=aws_conn_id, region_name=region_name, client_type="ec2")

    @property
    def region(self) -> str:
        """The region.

        :raises InvalidJob: if nobody names one.
        """
        region = self.region_name or self.get_session().region_name
        if not region:
            raise InvalidJob(
                f"connection {self.aws_conn_id!r} names no AWS region, and the task neither: "
                "put region_name into the connection's extra"
            )
        return region

    def pcluster(self) -> Pcluster:
        """Return ParallelCluster with the connection's credentials of this moment.

        :raises ConnectionBroken: if there are none, or AWS does not give them.
        """
        region = self.region
        try:
            credentials = self.get_credentials(region)
        except (BotoCoreError, ClientError, AttributeError) as error:  # AttributeError: there are none at all
            raise ConnectionBroken(
                f"connection {self.aws_conn_id!r} gives no AWS credentials: {error}"
            ) from error
        endpoint = self.conn_config.endpoint_url or os.environ.get("AWS_ENDPOINT_URL")
        environment = {
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_SESSION_TOKEN": credentials.token,
            "AWS_ENDPOINT_URL": endpoint,
        }
        return Pcluster(
            region=region, environment={name: value for name, value in environment.items() if value}
        )

    def clusters(self) -> list[Cluster]:
        """Return all clusters of the region that are not gone, each looked at closely."""
        pcluster, found, token = self.pcluster(), [], None
        while True:
            page = pcluster.call("list_clusters", **({"next_token": token} if token else {}))
            found += [cluster["clusterName"] for cluster in page.get("clusters", ())]
            if not (token := page.get("nextToken")):
                break
        described = (describe(pcluster, name) for name in found)
        return [cluster for cluster in described if cluster is not None]

    def configuration(self, cluster: Cluster) -> dict[str, Any]:
        """Return the configuration that a cluster runs with.

        :raises ConnectionBroken: if S3 does not give it.
        """
        try:
            answer = httpx.get(cluster.configuration_url, timeout=_FETCH_TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectionBroken(
                f"the configuration of cluster {cluster.name} cannot be read: {type(error).__name__}"
            ) from error
        if answer.status_code != 200:
            # The address is signed: it stays out of the message.
            raise ConnectionBroken(
                f"the configuration of cluster {cluster.name} cannot be read: S3 answers {answer.status_code}"
            )
        return read_configuration(answer.text)

    def way_in(self, cluster: Cluster, key_conn_id: str) -> SshAddress:
        """Return where to log in to a cluster's head node, and the host key that it must show.

        :param key_conn_id: SSH connection that holds the private key; its login counts, its host does not.
        :raises ConnectionBroken: if the head node does not run, or its console does not show its keys.
        """
        instance, host = cluster.head_node.get("instanceId"), cluster.head_node.get("privateIpAddress")
        if not instance or not host:
            raise ConnectionBroken(f"{cluster}: its head node has no address")
        user = self.get_connection(key_conn_id).login or DEFAULT_USER
        return SshAddress(key_conn_id, host=host, user=user, host_key=self._host_key(instance))

    def _host_key(self, instance: str) -> str:
        """Return the best of the host keys that an instance has printed on its console.

        AWS alone can read and write what is shown there, so nobody in between can forge it.
        """
        keys: dict[str, str] = {}
        try:
            for latest in ({}, {"Latest": True}):
                keys = keys or printed_host_keys(
                    self.conn.get_console_output(InstanceId=instance, **latest).get("Output") or ""
                )
        except (BotoCoreError, ClientError) as error:
            raise ConnectionBroken(
                f"EC2 does not show the console of head node {instance}: {error}"
            ) from error
        for kind in _PREFERRED:
            if kind in keys:
                return f"{kind} {keys[kind]}"
        raise ConnectionBroken(
            f"the console of head node {instance} does not show its SSH host keys (yet); they are printed "
            "minutes after its first start. Without them nobody logs in. If they never come, look at "
            f"'aws ec2 get-console-output --instance-id {instance}', and replace the cluster"
        )


def describe(pcluster: Pcluster, name: str) -> Cluster | None:
    """Return how a cluster stands; None where there is none."""
    try:
        cluster = Cluster.read(pcluster.call("describe_cluster", cluster_name=name))
    except NotFound:
        return None
    return None if cluster.stack_status == "DELETE_COMPLETE" else cluster


def events_since(pcluster: Pcluster, name: str, mark: str | None) -> list[StackEvent]:
    """Return the events of a cluster's stack after the one of this id, oldest first.

    :param mark: None for all events of the operation that goes on, or was the last.
    """
    return list(reversed(list(_newest_first(pcluster, name, mark))))


def _newest_first(pcluster: Pcluster, name: str, mark: str | None) -> Iterator[StackEvent]:
    token = None
    while True:
        try:
            page = pcluster.call(
                "get_cluster_stack_events", cluster_name=name, **({"next_token": token} if token else {})
            )
        except NotFound:
            return
        for answer in page.get("events", ()):
            event = StackEvent.read(answer)
            if event.id == mark:
                return
            yield event
            if mark is None and event.begins(name):
                return
        if not (token := page.get("nextToken")):
            return


def printed_host_keys(console: str) -> dict[str, str]:
    """Read the host keys that cloud-init has printed on a console: type -> key."""
    block = _HOST_KEYS.search(console)
    return dict(_HOST_KEY.findall(block.group(1))) if block else {}


def wants_stopped_fleet(error: PclusterFailed) -> bool:
    """Whether an update was refused only because compute nodes run."""
    said = " ".join(finding.get("message", "") for finding in error.validation)
    return "stop the compute fleet" in f"{error.reason} {said}".lower()
