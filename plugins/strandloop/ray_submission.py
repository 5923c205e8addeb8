"""What is submitted to Ray for a task."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

# A job that was told to stop while it waited for resources is started all the same, and ended at once (seen
# with ray 2.60: the command runs for some milliseconds). With this in front of it nothing of it has run.
GUARD = "sleep 0.5; "


def submission_body(
    submission_id: str,
    entrypoint: Sequence[str] | str,
    *,
    identity: str,
    ti: Any,
    runtime_env: Mapping[str, Any],
    metadata: Mapping[str, str],
    reserved: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the JSON body of ``POST /api/jobs/``.

    :param entrypoint: an argument list, or text for the shell.
    :param ti: the running task instance, which the job's metadata name.
    :param reserved: what is reserved for the driver, by the API's names; what is None is left out.
    """
    command = entrypoint if isinstance(entrypoint, str) else shlex.join(entrypoint)
    who = {
        "job_name": f"{ti.dag_id}.{ti.task_id}",
        "identity": identity,
        "run_id": ti.run_id,
        "map_index": str(ti.map_index),
        "try_number": str(ti.try_number),
    }
    return {
        "submission_id": submission_id,
        "entrypoint": GUARD + command,
        "runtime_env": dict(runtime_env),
        "metadata": {**who, **metadata},
        **{name: value for name, value in reserved.items() if value is not None},
    }
