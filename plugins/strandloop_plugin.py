"""The one plugin module: operators, sensors, triggers and their links need no registration."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class StrandloopPlugin(AirflowPlugin):
    """Shows in ``airflow plugins`` that the ``strandloop`` package is installed."""

    name = "strandloop"
