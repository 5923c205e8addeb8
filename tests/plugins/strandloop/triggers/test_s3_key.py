"""The landing trigger against a real S3 server (moto), and against none."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import boto3
import pytest

from strandloop.triggers.s3_key import S3KeyDeadlineTrigger


def fire(bucket_key: str, *, seconds: float) -> dict[str, Any]:
    """Run the trigger to its one event."""
    trigger = S3KeyDeadlineTrigger(
        bucket_key=bucket_key,
        aws_conn_id=None,
        poke_interval=0.05,
        deadline_epoch_seconds=time.time() + seconds,
    )

    async def first() -> dict[str, Any]:
        return (await anext(trigger.run())).payload

    return asyncio.run(asyncio.wait_for(first(), timeout=60))


def test_it_fires_when_the_key_arrives(s3_root: str) -> None:
    bucket = s3_root.removeprefix("s3://")
    client = boto3.client("s3")
    arrival = threading.Timer(
        0.3, client.put_object, kwargs={"Bucket": bucket, "Key": "m.json", "Body": b"{}"}
    )
    arrival.start()
    assert fire(f"{s3_root}/m.json", seconds=30) == {"status": "found"}
    arrival.join()


def test_it_gives_up_at_the_deadline(s3_root: str) -> None:
    assert fire(f"{s3_root}/never.json", seconds=0.3) == {"status": "timeout"}


def test_a_store_that_fails_is_asked_again_until_the_deadline(
    s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens on the discard port
    assert fire(f"{s3_root}/m.json", seconds=0.5) == {"status": "timeout"}


def test_it_serialises_to_itself() -> None:
    trigger = S3KeyDeadlineTrigger(
        bucket_key="s3://b/k", aws_conn_id="aws_default", poke_interval=30, deadline_epoch_seconds=1e9
    )
    path, arguments = trigger.serialize()
    assert path == f"{S3KeyDeadlineTrigger.__module__}.{S3KeyDeadlineTrigger.__qualname__}"
    assert S3KeyDeadlineTrigger(**arguments).serialize() == (path, arguments)
