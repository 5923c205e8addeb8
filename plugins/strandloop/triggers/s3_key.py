"""The trigger behind :class:`strandloop.sensors.s3_key.S3KeyDeadlineSensor`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.triggers.base import BaseTrigger, TriggerEvent
from botocore.exceptions import BotoCoreError, ClientError

from strandloop.trigger_grace import Grace


class S3KeyDeadlineTrigger(BaseTrigger):
    """Fire once: ``{"status": "found"}``, or ``{"status": "timeout"}`` when the deadline has passed.

    An error of the store is logged and asked again at the next poke: one failed request in hours of waiting
    must not fail the batch.

    :param bucket_key: ``s3://bucket/key``.
    :param aws_conn_id: Airflow connection; None follows boto3's ordinary configuration.
    :param poke_interval: seconds between two looks.
    :param deadline_epoch_seconds: absolute, so that a restarted triggerer goes on with the same one.
    """

    def __init__(
        self,
        *,
        bucket_key: str,
        aws_conn_id: str | None,
        poke_interval: float,
        deadline_epoch_seconds: float,
    ) -> None:
        super().__init__()
        self.bucket_key = bucket_key
        self.aws_conn_id = aws_conn_id
        self.poke_interval = poke_interval
        self.deadline_epoch_seconds = deadline_epoch_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, for the database."""
        return (
            "strandloop.triggers.s3_key.S3KeyDeadlineTrigger",
            {
                "bucket_key": self.bucket_key,
                "aws_conn_id": self.aws_conn_id,
                "poke_interval": self.poke_interval,
                "deadline_epoch_seconds": self.deadline_epoch_seconds,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, wait, look again."""
        grace = Grace(self.task_instance)
        hook = S3Hook(aws_conn_id=self.aws_conn_id)
        bucket, key = S3Hook.parse_s3_url(self.bucket_key)
        async with await hook.get_async_conn() as client:
            while True:
                try:
                    if await hook.get_head_object_async(client=client, key=key, bucket_name=bucket):
                        await grace.over()
                        yield TriggerEvent({"status": "found"})
                        return
                except (ClientError, BotoCoreError) as error:
                    self.log.warning("Could not look for %s, trying again: %s", self.bucket_key, error)
                left_seconds = self.deadline_epoch_seconds - time.time()
                if left_seconds <= 0:
                    await grace.over()
                    yield TriggerEvent({"status": "timeout"})
                    return
                await asyncio.sleep(min(self.poke_interval, left_seconds))
