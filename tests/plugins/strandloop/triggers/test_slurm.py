from __future__ import annotations

import json
from typing import Any

import pytest
from airflow._shared.module_loading import import_string

from strandloop.job_record import JobRecord, iso_utc
from strandloop.slurm_watch import WatchPlan
from strandloop.triggers.slurm import SlurmJobTrigger

RECORD = JobRecord("slurm", "7", "n", "PENDING", iso_utc(0), 1, cluster="c@t", job_dir="/fsx/j/1").to_xcom()


@pytest.mark.parametrize(
    "arguments",
    [{}, {"cancel_on_kill": False, "queue_timeout_seconds": 1.0, "run_timeout_seconds": 2.0}],
)
def test_comes_back_from_its_serialised_form(arguments: dict[str, Any]) -> None:
    trigger = SlurmJobTrigger("slurm", record=RECORD, reader="r-1", **arguments)
    path, kwargs = trigger.serialize()
    again = import_string(path)(**json.loads(json.dumps(kwargs)))
    assert type(again) is SlurmJobTrigger
    assert again.serialize() == (path, kwargs)
    assert again.plan == WatchPlan(
        RECORD, "r-1", **{k: v for k, v in arguments.items() if k != "cancel_on_kill"}
    )


def test_arguments_of_another_version_are_accepted() -> None:
    trigger = SlurmJobTrigger("slurm", record=RECORD, reader="r-1", some_old_argument=3)
    assert "some_old_argument" not in trigger.serialize()[1]
