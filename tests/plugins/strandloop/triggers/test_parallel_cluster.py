from __future__ import annotations

import inspect
import json
from dataclasses import fields
from typing import Any

from airflow._shared.module_loading import import_string
from airflow.triggers.base import BaseTrigger

from strandloop.pcluster_watch import ClusterOutcome, ClusterPlan
from strandloop.triggers.parallel_cluster import ParallelClusterTrigger

NOT_DEFAULT: dict[str, Any] = {
    "aws_conn_id": "aws_b",
    "region_name": "eu-west-1",
    "cluster_name": "c",
    "doing": "update",
    "give_up_at": 1_800_000_000.0,
    "poll_interval_seconds": 1.0,
    "unanswered_timeout_seconds": 2.0,
    "absent_ends": False,
}
# What the version of 2026-11-25 stored: its deferred tasks may be waited for by this version.
OLD: dict[str, Any] = {
    "aws_conn_id": "aws_default",
    "region_name": None,
    "cluster_name": "strandloop-51af3dc0da77",
    "doing": "create",
    "give_up_at": 1_800_000_000.0,
    "poll_interval_seconds": 30.0,
    "unanswered_timeout_seconds": 600.0,
    "absent_ends": True,
}


def test_it_serialises_to_itself() -> None:
    parameters = [
        *inspect.signature(ParallelClusterTrigger).parameters,
        *(field.name for field in fields(ClusterPlan)),
    ]
    assert list(NOT_DEFAULT) == [name for name in parameters if name != "plan"]
    path, kwargs = ParallelClusterTrigger(**NOT_DEFAULT).serialize()
    assert kwargs == NOT_DEFAULT
    assert import_string(path) is ParallelClusterTrigger
    assert import_string(path)(**json.loads(json.dumps(kwargs))).serialize() == (path, kwargs)


def test_arguments_and_events_of_other_versions_are_accepted() -> None:
    old = ParallelClusterTrigger(**OLD)
    assert old.serialize()[1].items() >= OLD.items()
    assert ParallelClusterTrigger(**OLD, of_a_later_version=1).serialize() == old.serialize()
    event = ClusterOutcome("create", failure="f").to_event()
    assert ClusterOutcome.from_event({**event, "of_a_later_version": 1}) == ClusterOutcome(
        "create", failure="f"
    )


def test_the_end_of_a_task_by_hand_is_left_to_the_teardown() -> None:
    assert ParallelClusterTrigger.on_kill is BaseTrigger.on_kill
