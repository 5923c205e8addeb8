"""The name of a remote job: the same for every try of one task, another one after a person clears it."""

from __future__ import annotations

import json
import uuid
from typing import Any

NAMESPACE = uuid.UUID("6f0c9a3e-6f0b-5d0e-9a57-3c1f6b1f2a41")


def job_identity(dag_id: str, *, run_id: str, task_id: str, map_index: int, generation: int) -> str:
    """Return the uuid5 under which at most one remote job may be alive.

    The five parts are joined as JSON, so that no two different tuples give the same text.

    :param map_index: index of a mapped task, -1 for a task that is not mapped.
    :param generation: see :func:`generation_of`.
    """
    return str(uuid.uuid5(NAMESPACE, json.dumps([dag_id, run_id, task_id, map_index, generation])))


def generation_of(*, max_tries: int, retries: int) -> int:
    """Count how many tries stood behind a task instance when it was last cleared; 0 if it never was.

    Airflow sets ``max_tries = try_number + retries`` when a person clears a task and leaves it alone
    on an automatic retry. The difference therefore holds through retries and moves with every clear.
    """
    return max_tries - retries


def identity_of(ti: Any) -> str:
    """Return the job identity of a running task instance (``context["ti"]``)."""
    return _identity(ti, _generation(ti))


def earlier_identities_of(ti: Any) -> list[str]:
    """Return the identities that this task instance may have had before it was cleared, newest first.

    Not each of them was used: a generation counts tries, and not every try was followed by a clear.
    """
    return [_identity(ti, generation) for generation in reversed(range(_generation(ti)))]


def _generation(ti: Any) -> int:
    return generation_of(max_tries=ti.max_tries, retries=ti.task.retries or 0)


def _identity(ti: Any, generation: int) -> str:
    return job_identity(
        ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=-1 if ti.map_index is None else ti.map_index,
        generation=generation,
    )
