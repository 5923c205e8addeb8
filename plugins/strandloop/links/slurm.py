"""Link from a task to the log of its Slurm job."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.types import TaskInstanceKey


class SlurmJobLink(BaseOperatorLink):
    """Points at the job's log file on the login node, as an ``sftp://`` address."""

    @property
    def name(self) -> str:
        """Name of the button."""
        return "Slurm job log"

    def persist(self, ti: Any, *, url: str) -> None:
        """Store the address under the link's own key: it shows while the task runs or is deferred."""
        ti.xcom_push(key=self.xcom_key, value=url)

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the stored address, or an empty text if there is no job yet."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""
