"""Whether a task that is told to stop still answers for its remote job, or a later try of it does.

Airflow ends a task process in the same way (SIGTERM, :meth:`on_kill`) when a person ends the task and when
the process is a leftover: its heartbeats came too late, or its scheduler died, and another try of the same
task was started meanwhile. In the second case that try has found the job, and a job that the leftover
cancelled would be lost to it.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

# Where Airflow has a store that survives retries (3.3), the try that is at work writes its id there.
KEY = "strandloop_try"

#: Airflow kills a process that has not ended 5 s after it was told to; most of that belongs to the cancelling.
PATIENCE_SECONDS = 1.5

#: A later try is at work, or will be: the job is its own.
FOLLOWED = {None, "scheduled", "queued", "deferred", "up_for_retry", "up_for_reschedule"}

log = logging.getLogger(__name__)


class Succession:
    """Knows whether this try is still the one that answers for the job.

    :param context: of the running task.
    """

    def __init__(self, context: Any) -> None:
        self._ti = context["ti"]
        self._store = context.get("task_state_store")

    def begin(self) -> None:
        """Note that from now on this try answers for the job."""
        if self._store is not None:
            self._store.set(KEY, str(self._ti.id))

    def superseded(self) -> bool:
        """Ask Airflow whether another try has taken over; False where it does not answer in time.

        Meant for ``on_kill``, which interrupts whatever the task does, perhaps a question to Airflow:
        then a second question can only wait, so it is asked from a thread of its own, and not for long.
        """
        answer: list[bool] = []

        def ask() -> None:
            try:
                answer.append(self._followed())
            except Exception as error:  # whatever Airflow raises, the job must be dealt with
                log.warning("cannot tell whether another try has taken over: %s", error)

        thread = threading.Thread(target=ask, name="succession", daemon=True)
        thread.start()
        thread.join(PATIENCE_SECONDS)
        return bool(answer and answer[0])

    def _followed(self) -> bool:
        ti = self._ti
        states = ti.get_task_states(
            dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
        )
        # A mapped task's key carries its index; there is one in any case.
        state = next(iter(states.get(ti.run_id, {}).values()), None)
        if state in FOLLOWED:
            return True
        # A try that a later one replaced is not known any more under its id, so the store gives it nothing.
        return state == "running" and self._store is not None and self._store.get(KEY) != str(ti.id)
