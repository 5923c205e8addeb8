from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.execution_time.xcom import XCom

from strandloop.links.ray_jobs import RayJobLink
from strandloop.operators.ray_jobs import RayJobOperator
from strandloop.sensors.ray_jobs import RayJobSensor


class TaskInstance:
    def __init__(self) -> None:
        self.pushed: dict[str, str] = {}

    def xcom_push(self, key: str, value: str) -> None:
        self.pushed[key] = value


def test_what_was_stored_under_the_links_key_is_what_the_button_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link, ti = RayJobLink(), TaskInstance()

    def get_value(*, ti_key: Any, key: str) -> str | None:
        return ti_key.pushed.get(key)

    # XCom asks Airflow's API, which only a running task has.
    monkeypatch.setattr(XCom, "get_value", get_value)
    assert link.get_link(None, ti_key=ti) == ""  # type: ignore[arg-type]
    link.persist(ti, url="http://head:8265/#/jobs/job-1")
    assert list(ti.pushed) == [link.xcom_key]
    assert link.get_link(None, ti_key=ti) == "http://head:8265/#/jobs/job-1"  # type: ignore[arg-type]


def test_operator_and_sensor_carry_the_link() -> None:
    for cls in (RayJobOperator, RayJobSensor):
        assert [link.name for link in cls.operator_extra_links] == ["Ray job"]
