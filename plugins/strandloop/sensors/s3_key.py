"""An S3KeySensor whose timeout holds everywhere: deferred, after a triggerer restart, under ``dags test``."""

from __future__ import annotations

import time
from typing import Any

from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSensorTimeout

from strandloop.triggers.s3_key import S3KeyDeadlineTrigger


class S3KeyDeadlineSensor(S3KeySensor):
    """Wait, deferred, for one key; past the timeout fail with the key's name and without retries.

    The deadline travels inside the trigger: Airflow's own limit on a deferral ends the task without a word
    about what was waited for, and ``airflow dags test`` does not apply it at all.

    :param bucket_key: ``s3://bucket/key`` of the one key (templated).
    :param advice: what a person should do when the key never comes; ends the error message (templated).
    """

    template_fields = (*S3KeySensor.template_fields, "advice")

    def __init__(self, *, bucket_key: str, advice: str = "", **kwargs: Any) -> None:
        super().__init__(bucket_key=bucket_key, deferrable=True, **kwargs)
        self.advice = advice

    def execute(self, context: Context) -> None:
        """Look once, then defer until the key is there or the deadline has passed."""
        if not self.poke(context):
            self.defer(
                trigger=S3KeyDeadlineTrigger(
                    bucket_key=str(self.bucket_key),
                    aws_conn_id=self.aws_conn_id,
                    poke_interval=self.poke_interval,
                    deadline_epoch_seconds=time.time() + self.timeout,
                ),
                method_name="execute_complete",
            )

    def execute_complete(self, context: Context, event: dict[str, Any]) -> None:
        """Succeed when the key is there; raise AirflowSensorTimeout when it did not come."""
        if event["status"] == "timeout":
            hours = self.timeout / 3600
            raise AirflowSensorTimeout(
                f"{self.bucket_key} did not appear within {hours:.3g} hours. {self.advice}".rstrip()
            )
