"""Waiting for what must come true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_SECONDS = 0.2


def until(condition: Callable[[], T | None], *, seconds: float = 120.0, what: str | Callable[[], str]) -> T:
    """Ask until the answer is true, and return it; fails with ``what`` was waited for."""
    give_up_at = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > give_up_at:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"did not come true within {seconds:.0f} s: {words}")
        time.sleep(PAUSE_SECONDS)
    return value
