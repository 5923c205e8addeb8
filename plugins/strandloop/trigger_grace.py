"""Keeps a trigger from firing before Airflow has seen the end of the process that deferred the task.

Where a trigger fires within moments, the task is queued again while the executor has not yet reported that
the deferring process ended. The scheduler takes that report for the end of the try that is queued, and fails
the task ("finished with state success, but the task instance's state attribute is queued"; airflow 3.3.2,
``process_executor_events``; seen in the fault matrix).
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

#: A process that has deferred ends within about 3 s on two busy cores.
GRACE_SECONDS = 8.0


class Grace:
    """Counts from its making: from the start of a trigger.

    :param ti: the trigger's task instance; None where triggers run in line (``airflow dags test``), which
        needs no grace.
    """

    def __init__(self, ti: Any) -> None:
        self._until = time.monotonic() + GRACE_SECONDS if ti is not None else 0.0

    async def over(self) -> None:
        """Wait for what is left of it."""
        if (left := self._until - time.monotonic()) > 0:
            await asyncio.sleep(left)
