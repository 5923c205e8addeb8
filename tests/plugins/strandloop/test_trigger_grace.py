"""A trigger of a task in a real triggerer does not fire at once; one that runs in line does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from strandloop import trigger_grace
from strandloop.trigger_grace import GRACE_SECONDS, Grace


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.mark.parametrize(
    ("ti", "ran_seconds", "waits"),
    [
        (object(), 0.0, [GRACE_SECONDS]),
        (object(), 3.0, [GRACE_SECONDS - 3.0]),
        (object(), GRACE_SECONDS, []),
        (None, 0.0, []),
    ],
)
def test_grace(monkeypatch: pytest.MonkeyPatch, ti: object, ran_seconds: float, waits: list[float]) -> None:
    clock = Clock()
    monkeypatch.setattr(trigger_grace, "time", clock)
    monkeypatch.setattr(trigger_grace, "asyncio", SimpleNamespace(sleep=clock.sleep))
    grace = Grace(ti)
    clock.now += ran_seconds
    asyncio.run(grace.over())
    asyncio.run(grace.over())  # once is enough
    assert clock.waits == waits
