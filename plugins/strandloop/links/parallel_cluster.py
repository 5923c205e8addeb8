"""Links from a task to its cluster in the AWS console."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom
from airflow.sdk.types import TaskInstanceKey


class _ConsoleLink(BaseOperatorLink):
    """An address that the task has stored, or an empty text while there is no cluster."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the stored address."""
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


class CloudFormationStackLink(_ConsoleLink):
    """Opens the cluster's CloudFormation stack."""

    @property
    def name(self) -> str:
        """Name of the button."""
        return "CloudFormation stack"

    def persist(self, ti: Any, *, region: str, uid: str) -> None:
        """Store the address under the link's own key: it shows while the task runs or is deferred."""
        page = f"cloudformation/home?region={region}#/stacks/events?stackId={quote(uid, safe='')}"
        ti.xcom_push(key=self.xcom_key, value=_console(region, page))


class CloudWatchDashboardLink(_ConsoleLink):
    """Opens the dashboard that ParallelCluster makes for each cluster."""

    @property
    def name(self) -> str:
        """Name of the button."""
        return "CloudWatch dashboard"

    def persist(self, ti: Any, *, region: str, cluster_name: str) -> None:
        """Store the address under the link's own key."""
        page = f"cloudwatch/home?region={region}#dashboards/dashboard/{cluster_name}-{region}"
        ti.xcom_push(key=self.xcom_key, value=_console(region, page))


def _console(region: str, page: str) -> str:
    domain = "amazonaws.cn" if region.startswith("cn-") else "aws.amazon.com"
    return f"https://{region}.console.{domain}/{page}"
