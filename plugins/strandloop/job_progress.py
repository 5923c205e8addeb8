"""How far a running job says it is, in one line for the task log and at a pace that people can bear.

A Slurm job writes ``progress.json`` into its directory; a Ray job prints lines of ``PROGRESS_MARK`` and the
same JSON: ``{"percent": 41.7, "rate": 12500, "unit": "reads", "seconds_left": 95}``. Every key may be absent.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

PROGRESS_MARK = "@progress "

#: Seconds between two progress lines of one job, unless it has moved on by ``STEP_PERCENT`` meanwhile.
PACE_SECONDS = 60.0
STEP_PERCENT = 10.0


@dataclass(frozen=True)
class JobProgress:
    """What a job says of itself. None where it does not say.

    :param percent: of the work that is done, 0 to 100.
    :param rate: of ``unit`` per second.
    """

    percent: float | None = None
    rate: float | None = None
    unit: str = ""
    seconds_left: float | None = None

    @classmethod
    def read(cls, text: str) -> JobProgress | None:
        """Read a job's JSON; None if it is no progress: a job's own mistake is no reason to fail it."""
        try:
            value = json.loads(text)
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        numbers = {name: _number(value.get(name)) for name in ("percent", "rate", "seconds_left")}
        if all(number is None for number in numbers.values()):
            return None
        return cls(unit=str(value.get("unit") or "")[:40], **numbers)

    def __str__(self) -> str:
        parts = []
        if self.percent is not None:
            parts.append(f"{self.percent:.1f} % done")
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f} {self.unit}/s".replace(" /s", " per second"))
        if self.seconds_left is not None:
            parts.append(f"{_duration(self.seconds_left)} left")
        return ", ".join(parts)


class ProgressPace:
    """Lets a line through when it is due: the first, then after ``PACE_SECONDS`` or a large step."""

    def __init__(self) -> None:
        self._shown: JobProgress | None = None
        self._shown_at = -math.inf

    def line(self, text: str, *, now: float) -> str | None:
        """Return the line to show for what the job says now, or None.

        :param now: seconds, of any clock that only goes forward.
        """
        progress = JobProgress.read(text)
        if progress is None or progress == self._shown:
            return None
        last = self._shown.percent if self._shown else None
        stepped = (
            progress.percent is not None and last is not None and progress.percent - last >= STEP_PERCENT
        )
        if now - self._shown_at < PACE_SECONDS and not stepped:
            return None
        self._shown, self._shown_at = progress, now
        return f"progress: {progress}"


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
