"""A trigger of a task in a real triggerer does not fire at once; one that runs in line does."""

from __future__ import annotations

import asyncio
import time

import pytest

from strandloop import trigger_grace
from strandloop.trigger_grace import Grace


@pytest.mark.parametrize(("ti", "seconds"), [(object(), 0.2), (None, 0.0)])
def test_grace(monkeypatch: pytest.MonkeyPatch, ti: object, seconds: float) -> None:
    monkeypatch.setattr(trigger_grace, "GRACE_SECONDS", 0.2)
    grace, began = Grace(ti), time.monotonic()
    asyncio.run(grace.over())
    asyncio.run(grace.over())  # once is enough
    assert seconds <= time.monotonic() - began < seconds + 0.19
