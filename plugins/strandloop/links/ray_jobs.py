"""Link from a task to its job in the Ray dashboard."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.types import TaskInstanceKey


class RayJobLink(BaseOperatorLink):
    """Opens the page of the job that the task submitted or waits for."""

    @property
    def name(self) -> str:
        """Name of the button."""
        return "Ray job"

    def persist(self, ti: Any, *, url: str) -> None:
        """Store the address under the link's own key: it shows while the task runs or is deferred."""
        ti.xcom_push(key=self.xcom_key, value=url)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the stored address, or an empty text if no job was found or submitted."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""
