from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferred

from strandloop.errors import InvalidJob, JobFailed, JobLost
from strandloop.ray_job import Outcome, RayJob
from strandloop.sensors.ray_jobs import RayJobSensor
from strandloop.triggers.ray_jobs import RayJobTrigger

RECORD = RayJob("job-1", status="PENDING", submitted_ms=1_000_000).record().to_xcom()
CONTEXT: Any = {"ti": SimpleNamespace(xcom_push=lambda key, value: None)}


def sensor(**kwargs: Any) -> RayJobSensor:
    return RayJobSensor(
        task_id="wait", **{"job": RECORD, "deferrable": False, "poke_interval": 0.01, **kwargs}
    )


def test_template_fields_are_attributes() -> None:
    assert set(sensor().template_fields) == {"job", "ray_conn_id"}
    assert all(hasattr(sensor(), name) for name in sensor().template_fields)


@pytest.mark.parametrize("job", [RECORD, "job-1"])
def test_it_waits_for_success_and_returns_the_record(served_head: Any, job: Any) -> None:
    served_head.jobs = {"job-1": ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]}
    record = sensor(job=job).execute(CONTEXT)
    assert (record["id"], record["state"], record["nodes"]) == ("job-1", "SUCCEEDED", 2)


def test_every_other_end_is_red(served_head: Any) -> None:
    for status in ("FAILED", "STOPPED"):
        served_head.jobs = {"job-1": ["RUNNING", status]}
        with pytest.raises(JobFailed, match=status):
            sensor().execute(CONTEXT)
    served_head.jobs = {}
    with pytest.raises(JobLost):
        sensor().execute(CONTEXT)


def test_it_owns_nothing_when_it_defers(served_head: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute(CONTEXT)
    trigger = deferred.value.trigger
    assert isinstance(trigger, RayJobTrigger)
    assert (trigger.stop_at_deadline, trigger.cancel_on_kill) == (False, False)
    with pytest.raises(AirflowSensorTimeout, match="left alone"):
        sensor().execute_complete(CONTEXT, Outcome("deadline", "job-1", said="left alone").to_event())


@pytest.mark.parametrize("job", [None, {}, 42, {"system": "ray"}, {**RECORD, "system": "slurm", "id": "42"}])
def test_what_is_no_reference_is_refused(job: Any) -> None:
    with pytest.raises(InvalidJob, match="neither a job record nor a submission id"):
        sensor(job=job).execute(CONTEXT)
