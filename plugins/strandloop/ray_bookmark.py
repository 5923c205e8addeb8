"""How far a Ray job was followed, and where that is kept, so that a successor goes on from there.

A bookmark is no evidence: one that cannot be kept or read fails nothing. The log says so once, and then a
restart shows lines again; it never loses any, because a bookmark is kept after its lines were passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

from airflow.sdk.bases.xcom import BaseXCom

KEY = "ray_job_read"
#: Seconds that Airflow has to answer.
PATIENCE = 10.0


@dataclass(frozen=True)
class Bookmark:
    """What was seen of one submission.

    :param submission_id: with ``submitted_ms`` it names the submission for good: a rebuilt cluster may have
        taken the same id again.
    :param submitted_ms: ms since the epoch, by the head's clock.
    :param log_bytes: of the job's log that were passed on; they end with a line.
    :param running_since: when the job began to run, seconds since the epoch.
    """

    submission_id: str
    submitted_ms: int
    log_bytes: int = 0
    running_since: float | None = None

    def same_job(self, other: Bookmark) -> bool:
        """Whether both are about the same submission."""
        return (self.submission_id, self.submitted_ms) == (other.submission_id, other.submitted_ms)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Self | None:
        """Read what :meth:`to_json` wrote; None if it is nothing of the kind."""
        match value:
            case {"submission_id": str(job), "submitted_ms": int(ms), "log_bytes": int(log_bytes), **rest}:
                since = rest.get("running_since")
                return cls(job, ms, log_bytes, float(since) if isinstance(since, int | float) else None)
        return None


class TaskStoreShelf:
    """Keeps the bookmark of a task process in Airflow's task state store: it survives retries.

    :param store: ``context["task_state_store"]``; None where Airflow has none (3.2).
    :param say: receives the one line that tells of a bookmark that is not kept.
    """

    def __init__(self, store: Any, *, say: Callable[[str], None]) -> None:
        self._store = store
        self._complaint = _Complaint(say)

    def read(self) -> Bookmark | None:
        """Return what was kept, None if nothing was."""
        if self._store is None:
            return None
        try:
            return Bookmark.from_json(self._store.get(KEY))
        except Exception as error:
            self._complaint.make(error)
            return None

    def keep(self, bookmark: Bookmark) -> None:
        """Keep the bookmark instead of the one before."""
        try:
            if self._store is None:
                raise LookupError("this Airflow has no task state store")
            self._store.set(KEY, bookmark.to_json())
        except Exception as error:
            self._complaint.make(error)


class HasKey(Protocol):
    """What names a task instance."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int


class XComShelf:
    """Keeps the bookmark of a trigger as an XCom of its task: it survives restarts of the triggerer.

    The triggerer gives triggers no task state store. Airflow's own backend is used, whatever backend is
    configured: others do blocking work.

    :param ti: the task instance that the triggerer set; None outside of it.
    :param say: receives the one line that tells of a bookmark that is not kept.
    """

    def __init__(self, ti: HasKey | None, *, say: Callable[[str], None]) -> None:
        self._ti = ti
        self._complaint = _Complaint(say)

    async def read(self) -> Bookmark | None:
        """Return what was kept, None if nothing was."""
        try:
            async with asyncio.timeout(PATIENCE):
                return Bookmark.from_json(await BaseXCom.aget_one(key=KEY, **self._names()))
        except Exception as error:
            self._complaint.make(error)
            return None

    async def keep(self, bookmark: Bookmark) -> None:
        """Keep the bookmark instead of the one before."""
        try:
            async with asyncio.timeout(PATIENCE):
                await BaseXCom.aset(KEY, bookmark.to_json(), **self._names())
        except Exception as error:
            self._complaint.make(error)

    def _names(self) -> dict[str, Any]:
        if self._ti is None:
            raise LookupError("the trigger does not run in a triggerer")
        ti = self._ti
        index = -1 if ti.map_index is None else ti.map_index
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": index}


class _Complaint:
    """Says once that bookmarks are not kept."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._made = False

    def make(self, error: Exception) -> None:
        if not self._made:
            self._made = True
            self._say(
                "(how far the job's log was read cannot be kept here, so after a restart lines of it may come "
                f"twice: {type(error).__name__}: {str(error)[:200]})"
            )
