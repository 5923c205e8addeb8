"""How long a coroutine keeps an event loop to itself."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Coroutine
from typing import Any
from unittest.mock import patch

#: What a trigger may take at a time: the triggerer has a single event loop for all of them, and warns of more.
TURN_SECONDS = 0.2


def longest_turn_seconds(work: Coroutine[Any, Any, Any]) -> float:
    """Do this work in an event loop of its own; return the processor time of its longest turn.

    Processor time of the loop's thread, not time of day: nothing else that this machine or this process
    does adds to it. Waiting does not add to it either. Nor does the garbage collector's look at what all tests
    before have left in memory, which takes half a second.
    """
    longest = 0.0
    run = asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        before = time.thread_time()
        run(handle)
        longest = max(longest, time.thread_time() - before)

    gc.collect()
    gc.freeze()
    try:
        with patch.object(asyncio.Handle, "_run", timed):
            asyncio.run(work)
    finally:
        gc.unfreeze()
    return longest
