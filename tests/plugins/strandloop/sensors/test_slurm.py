from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import TaskDeferred

from strandloop.errors import InvalidJob
from strandloop.job_record import JobRecord, iso_utc
from strandloop.sensors.slurm import SlurmJobSensor
from strandloop.triggers.slurm import SlurmJobTrigger

RECORD = JobRecord("slurm", "7", "n", "PENDING", iso_utc(0), 1, cluster="c@t", job_dir="/fsx/j/1").to_xcom()


def context(task: SlurmJobSensor) -> dict[str, object]:
    ti = SimpleNamespace(
        dag_id="d", run_id="r", task_id="t", map_index=-1, max_tries=0, try_number=2, task=task
    )
    return {"ti": ti}


def test_defers_with_the_reference_and_its_own_place_in_the_log() -> None:
    sensor = SlurmJobSensor(task_id="t", job=RECORD, deferrable=True, poke_interval=7, run_timeout_seconds=60)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context(sensor))  # type: ignore[arg-type]
    trigger = deferred.value.trigger
    assert isinstance(trigger, SlurmJobTrigger)
    assert trigger.plan.record == RECORD and trigger.plan.reader.endswith("-2")
    assert (trigger.plan.poll_interval_seconds, trigger.plan.run_timeout_seconds) == (7, 60)
    assert not trigger.cancel_on_kill


def test_the_job_is_templated() -> None:
    assert SlurmJobSensor.template_fields == ("job", "ssh_conn_id")


@pytest.mark.parametrize("job", [None, "42", {"system": "ray", "id": "x"}])
def test_what_is_no_slurm_job_is_refused(job: object) -> None:
    sensor = SlurmJobSensor(task_id="t", job=job, deferrable=True)  # type: ignore[arg-type]
    with pytest.raises(InvalidJob, match="reference of a Slurm job"):
        sensor.execute(context(sensor))  # type: ignore[arg-type]
