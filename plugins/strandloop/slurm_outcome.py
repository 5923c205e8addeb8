"""How the wait for a Slurm job ended, as a trigger hands it to its task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from strandloop.slurm_log import printable
from strandloop.slurm_state import JobState


@dataclass(frozen=True)
class Outcome:
    """How the wait ended.

    :param limit: the limit of the task that passed, ``queue`` or ``run``, or ``never`` for a job that Slurm
        will not start; the job still lives then.
    :param invalid: why the connection cannot work at all; the job was not seen then.
    :param unfinished: elements of a job array that were not seen to succeed.
    """

    record: dict[str, Any]
    state: str
    reason: str
    exit_code: int | None = None
    nodes: str = ""
    last_lines: tuple[str, ...] = ()
    limit: str = ""
    invalid: str = ""
    unfinished: tuple[int, ...] = ()

    @property
    def failed(self) -> bool:
        """The job was seen to fail."""
        return JobState(self.state).failed

    def to_event(self) -> dict[str, Any]:
        """Return plain JSON values for a trigger event."""
        return {**asdict(self), "last_lines": list(self.last_lines), "unfinished": list(self.unfinished)}

    def with_log_end(self, text: bytes) -> Self:
        """Return this outcome with the last lines of the log's end."""
        return replace(self, last_lines=tuple(printable(line) for line in text.split(b"\n") if line))

    @classmethod
    def from_event(cls, event: dict[str, Any]) -> Self:
        """Read what :meth:`to_event` wrote, of an earlier or later version too."""
        known = {field.name for field in fields(cls)}
        lists = {name: tuple(event.get(name) or ()) for name in ("last_lines", "unfinished")}
        return cls(**{name: value for name, value in event.items() if name in known} | lists)
