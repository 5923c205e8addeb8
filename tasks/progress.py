"""A line of progress now and then in the log of a long job, also while nothing arrives."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self


class Progress:
    """Counts reads and parts; prints both and the rate every few seconds between ``with`` and its end.

    The rate counts only what this run embedded, from its first second on.

    :param every_s: seconds between two lines.
    """

    def __init__(self, *, every_s: float = 5.0) -> None:
        self.reads = 0
        self.parts = 0
        self.parts_resumed = 0
        self._every_s = every_s
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._printer = threading.Thread(target=self._print_lines, name="progress", daemon=True)

    def embedded(self, reads: int) -> None:
        """A part with so many reads is done."""
        self.parts += 1
        self.reads += reads

    def resumed(self) -> None:
        """A part was done by an earlier run."""
        self.parts_resumed += 1

    def line(self) -> str:
        """Where the job stands."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        resumed = f" (and {self.parts_resumed:,} of an earlier run)" if self.parts_resumed else ""
        return (
            f"{self.reads:,} reads embedded in {self.parts:,} parts{resumed}, "
            f"{self.reads / seconds:,.0f} reads/s, {seconds:.0f} s"
        )

    def __enter__(self) -> Self:
        self._printer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._printer.join()
        print(self.line(), flush=True)

    def _print_lines(self) -> None:
        while not self._ended.wait(self._every_s):
            print(self.line(), flush=True)
