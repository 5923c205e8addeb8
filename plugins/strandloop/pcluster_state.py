"""How a ParallelCluster cluster stands, read from what ``pcluster`` answers."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import yaml

from strandloop.errors import InvalidJob, RemoteJobError

#: States of a stack in which the cluster's resources are all there; those of an update taken back are the old.
_WHOLE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"}
#: States of the compute fleet in which it takes no jobs and stays so.
FLEET_AT_REST = {"STOPPED", "PROTECTED"}
_BEGINNINGS = {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"}
_FLEET_MOVING = {"START_REQUESTED", "STARTING", "STOP_REQUESTED", "STOPPING"}


@dataclass(frozen=True)
class Cluster:
    """One answer of ``describe_cluster``.

    :param uid: ARN of its CloudFormation stack, which no other cluster ever had or will have.
    :param status: ``CREATE_COMPLETE`` and so on; rolled back creations are ``CREATE_FAILED``.
    :param stack_status: CloudFormation's own word, which tells whether a roll-back still goes on.
    :param fleet: state of the compute fleet.
    :param created_at: ISO 8601.
    :param configuration_url: a signed address, for a short time, of the configuration as it was submitted.
    """

    name: str
    uid: str
    region: str
    status: str
    stack_status: str
    fleet: str = ""
    created_at: str = ""
    configuration_url: str = field(default="", repr=False)
    head_node: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Self:
        """Read an answer; what it leaves out (of a cluster that is going, almost all) is empty."""
        head = answer.get("headNode") or {}
        return cls(
            name=answer["clusterName"],
            uid=answer["cloudformationStackArn"],
            region=answer.get("region") or "",
            status=answer["clusterStatus"],
            stack_status=answer.get("cloudFormationStackStatus") or answer["clusterStatus"],
            fleet=answer.get("computeFleetStatus") or "",
            created_at=answer.get("creationTime") or "",
            configuration_url=(answer.get("clusterConfiguration") or {}).get("url") or "",
            head_node={name: value for name, value in head.items() if isinstance(value, str)},
            tags={tag["key"]: tag["value"] for tag in answer.get("tags") or ()},
            failure="; ".join(
                f"{failure.get('failureCode')}: {failure.get('failureReason')}"
                for failure in answer.get("failures") or ()
            ),
        )

    @property
    def moving(self) -> bool:
        """Whether something is under way that ends by itself."""
        if self.stack_status.endswith("_IN_PROGRESS"):
            return True
        return self.whole and self.fleet in _FLEET_MOVING

    @property
    def whole(self) -> bool:
        """Whether its resources are there, all of one configuration."""
        return self.stack_status in _WHOLE

    def __str__(self) -> str:
        fleet = f", compute fleet {self.fleet}" if self.fleet and self.whole else ""
        return f"cluster {self.name} is {self.stack_status}{fleet}"


@dataclass(frozen=True)
class StackEvent:
    """One event of a cluster's CloudFormation stack."""

    id: str
    at: str
    resource: str
    kind: str
    status: str
    reason: str

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Self:
        """Read one event of ``get_cluster_stack_events``."""
        return cls(
            id=answer["eventId"],
            at=answer.get("timestamp") or "",
            resource=answer.get("logicalResourceId") or "",
            kind=answer.get("resourceType") or "",
            status=answer.get("resourceStatus") or "",
            reason=answer.get("resourceStatusReason") or "",
        )

    def begins(self, stack: str) -> bool:
        """Whether an operation on the whole stack began here; its roll-back is a part of it."""
        return self.resource == stack and self.status in _BEGINNINGS

    @property
    def failed(self) -> bool:
        """Whether something went wrong here; what was given up because of that does not count."""
        return self.status.endswith("_FAILED") and "cancelled" not in self.reason.lower()

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.at} {self.resource} ({self.kind}) {self.status}{reason}"


def read_configuration(text: str) -> dict[str, Any]:
    """Read a cluster configuration.

    :raises InvalidJob: if it is not YAML with sections.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidJob(f"the cluster configuration is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise InvalidJob("the cluster configuration has no sections such as HeadNode and Scheduling")
    return value


def configuration_hash(configuration: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a configuration, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(configuration, sort_keys=True, default=str).encode()).hexdigest()


def differences(running: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the lines of a diff, empty where both mean the same."""
    before, after = (
        yaml.safe_dump(configuration, sort_keys=True).splitlines() for configuration in (running, wanted)
    )
    return list(difflib.unified_diff(before, after, "running", "wanted", lineterm="", n=2))


class ClusterFailed(RemoteJobError):
    """A cluster was not created, updated or deleted to the end; the message says what failed first."""


class ClusterBusy(RemoteJobError):
    """Others have jobs on the cluster that would be ended."""


class ClusterUnclear(RemoteJobError):
    """Nobody could tell for too long how the cluster stands, or time was up."""
