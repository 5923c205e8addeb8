from __future__ import annotations

import pytest

from strandloop.job_record import JobRecord, iso_utc


def test_comes_back_from_xcom_as_it_went() -> None:
    record = JobRecord("slurm", "42", "n", "RUNNING", iso_utc(0), 1, cluster="c@t", job_dir="/fsx/n/1")
    assert JobRecord.from_xcom(record.to_xcom()) == record
    assert record.to_xcom()["submitted_at"] == "1970-01-01T00:00:00Z"


def test_a_ray_job_has_no_cluster_and_no_directory() -> None:
    value = JobRecord("ray", "n-1", "n", "SUCCEEDED", iso_utc(0), 1).to_xcom()
    assert {"cluster", "job_dir", "array"}.isdisjoint(value)
    assert JobRecord.from_xcom({**value, "of a later version": 1}).job_dir is None


def test_refuses_what_is_no_record() -> None:
    with pytest.raises(ValueError, match="not a job record"):
        JobRecord.from_xcom({"id": "42"})


def test_a_record_of_a_version_without_arrays_is_read() -> None:
    value = JobRecord("slurm", "42", "n", "RUNNING", iso_utc(0), 1, array="0-9%2").to_xcom()
    assert JobRecord.from_xcom(value).array == "0-9%2"
    assert JobRecord.from_xcom({k: v for k, v in value.items() if k != "array"}).array is None
