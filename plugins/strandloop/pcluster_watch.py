"""Following a cluster until nothing moves any more: looks at it, and tells its stack's events as they happen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from asgiref.sync import sync_to_async

from strandloop.errors import InvalidJob, RemoteJobError
from strandloop.hooks.parallel_cluster import describe, events_since
from strandloop.pcluster import Pcluster
from strandloop.pcluster_state import StackEvent


@dataclass(frozen=True)
class ClusterPlan:
    """What is waited for, and how long.

    :param doing: what the task has begun: ``create``, ``update``, ``delete``, ``fleet`` (its compute fleet
        starts or stops), or ``wait`` for what somebody else has begun.
    :param give_up_at: seconds since the epoch; a deferral is not bound by anything else.
    :param unanswered_timeout_seconds: how long AWS may give no usable answer: throttled, credentials expired,
        a broken connection.
    :param absent_ends: whether there being no cluster ends the wait.
    """

    cluster_name: str
    doing: str
    give_up_at: float
    poll_interval_seconds: float = 30.0
    unanswered_timeout_seconds: float = 600.0
    absent_ends: bool = True

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """Read what :meth:`to_kwargs` of this or another version gave; what is not known here is ignored."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_kwargs(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class ClusterOutcome:
    """Why the waiting ended.

    :param doing: as in the plan.
    :param problem: why nothing can be said; empty where the cluster is at rest, or gone.
    :param invalid: whether a retry cannot help.
    :param failure: the stack event that failed first, in words.
    """

    doing: str
    problem: str = ""
    invalid: bool = False
    failure: str = ""

    def to_event(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Self:
        """Read what :meth:`to_event` of this or another version gave."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in event.items() if name in known})


class ClusterWatch:
    """Looks at one cluster again and again, telling each event of the operation that goes on once.

    A new watch, of a triggerer that was restarted, tells the operation's events from its beginning again.

    :param say: receives what happens, line by line.
    """

    def __init__(self, plan: ClusterPlan, *, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._say = say
        self._mark: str | None = None
        self._failure: StackEvent | None = None
        self._silent_since: float | None = None
        self._last_words = ""

    def look(self, pcluster: Pcluster) -> ClusterOutcome | None:
        """Look once, blocking; the outcome, or None to look again after a pause."""
        plan = self.plan
        try:
            # In this order: the events of a stack that is at rest are complete.
            cluster = describe(pcluster, plan.cluster_name)
            if cluster is not None and plan.doing != "fleet":
                self._tell_events(pcluster)
        except RemoteJobError as error:
            return self.broken(error)
        self._silent_since = None
        words = f"there is no cluster {plan.cluster_name}" if cluster is None else str(cluster)
        if words != self._last_words:
            self._last_words = words
            self._say(words)
        at_rest = plan.absent_ends if cluster is None else not cluster.moving
        if at_rest:
            failure = self._failure or (cluster and cluster.failure)
            return ClusterOutcome(plan.doing, failure=str(failure or ""))
        if time.time() > plan.give_up_at:
            return ClusterOutcome(plan.doing, problem=f"{words}, and the task's time is up")
        return None

    def broken(self, error: RemoteJobError) -> ClusterOutcome | None:
        """Take note that AWS gave no usable answer; the outcome, once that lasts too long or cannot heal."""
        if isinstance(error, InvalidJob):
            return ClusterOutcome(self.plan.doing, problem=str(error), invalid=True)
        now, patience = time.time(), self.plan.unanswered_timeout_seconds
        self._silent_since = self._silent_since or now
        if now - self._silent_since >= patience or now > self.plan.give_up_at:
            seconds = f"{now - self._silent_since:.0f} s"
            return ClusterOutcome(
                self.plan.doing, problem=f"AWS has given no usable answer for {seconds}: {error}"
            )
        self._say(f"{error}; looking again")
        return None

    def _tell_events(self, pcluster: Pcluster) -> None:
        for event in events_since(pcluster, self.plan.cluster_name, self._mark):
            self._mark = event.id
            if self._failure is None and event.failed:
                self._failure = event
            self._say(str(event))


def wait(connect: Callable[[], Pcluster], plan: ClusterPlan, *, say: Callable[[str], None]) -> ClusterOutcome:
    """Block until the cluster is at rest or gone, or nobody could tell for too long.

    :param connect: gives ParallelCluster with the credentials of the moment.
    """
    watch = ClusterWatch(plan, say=say)
    while True:
        try:
            outcome = watch.look(connect())
        except RemoteJobError as error:
            outcome = watch.broken(error)
        if outcome is not None:
            return outcome
        time.sleep(plan.poll_interval_seconds)


async def wait_in_loop(
    connect: Callable[[], Pcluster], plan: ClusterPlan, *, say: Callable[[str], None]
) -> ClusterOutcome:
    """Do what :func:`wait` does without blocking the event loop."""
    lines: list[str] = []
    watch = ClusterWatch(plan, say=lines.append)
    while True:
        try:
            # Airflow answers in threads of sync_to_async only. They take turns, so no other work is put there.
            pcluster = await sync_to_async(connect)()
            outcome = await asyncio.to_thread(watch.look, pcluster)
        except RemoteJobError as error:
            outcome = watch.broken(error)
        for line in lines:
            say(line)
        lines.clear()
        if outcome is not None:
            return outcome
        await asyncio.sleep(plan.poll_interval_seconds)
