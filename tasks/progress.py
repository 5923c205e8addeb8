"""How far a long job is: a line now and then in its log, and ``progress.json`` beside its results."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from tasks.errors import StorageError
from tasks.object_store import ObjectStore, ObjectUri

PROGRESS_MARK = "@progress "
"""Whoever watches the job's log takes a line that begins so, and goes on with JSON, as its progress."""


class Progress:
    """Counts what is done between ``with`` and its end, and says so every few seconds, also while nothing arrives.

    The object ``uri`` is overwritten each time. It is removed when the job has succeeded, and says why when it
    has failed.

    :param records: reads of the batch, or None where nobody counted them.
    :param capacity: CPUs and GPUs that the job may use at the moment (``CPU``, ``GPU``).
    :param every_seconds: between two reports.
    """

    def __init__(
        self,
        store: ObjectStore,
        uri: ObjectUri,
        *,
        records: int | None,
        capacity: Callable[[], Mapping[str, float]],
        every_seconds: float = 5.0,
    ) -> None:
        self.reads = 0
        self.vectors = 0
        self.parts = 0
        self.parts_resumed = 0
        self.busy_seconds: Counter[str] = Counter()
        self._reads_resumed = 0
        self._store = store
        self._uri = uri
        self._records = records
        self._capacity = capacity
        self._every_seconds = every_seconds
        self._started = time.monotonic()
        self._ended = threading.Event()
        self._reporter = threading.Thread(target=self._report_until_end, name="progress", daemon=True)
        self._silent = False

    def embedded(self, *, reads: int, vectors: int, busy_seconds: Mapping[str, float]) -> None:
        """A part is done.

        :param busy_seconds: stage -> seconds of a core (of a GPU: ``gpu``) that it took.
        """
        self.parts += 1
        self.reads += reads
        self.vectors += vectors
        self.busy_seconds.update(busy_seconds)

    def resumed(self, *, reads: int) -> None:
        """A part was done by an earlier run."""
        self.parts_resumed += 1
        self._reads_resumed += reads

    def report(self, status: str = "running") -> dict[str, Any]:
        """Where the job stands; ``percent``, ``rate``, ``unit`` and ``seconds_left`` are what people are shown.

        ``rate`` is that of this run from its first second on. ``cpus_busy`` and ``gpus_busy`` are means over
        the run, measured in the stages themselves, of what ``cpus`` and ``gpus`` the cluster has.
        """
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = self.reads / seconds
        done = self.reads + self._reads_resumed
        capacity = self._capacity()
        gpu_seconds = self.busy_seconds["gpu"]
        report: dict[str, Any] = {
            "status": status,
            "rate": round(rate, 1),
            "unit": "reads",
            "reads": done,
            "vectors": self.vectors,
            "parts": self.parts,
            "parts_resumed": self.parts_resumed,
            "seconds": round(seconds, 1),
            "cpus": capacity.get("CPU", 0),
            "cpus_busy": round((self.busy_seconds.total() - gpu_seconds) / seconds, 2),
            "gpus": capacity.get("GPU", 0),
            "gpus_busy": round(gpu_seconds / seconds, 2),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if self._records is not None:
            report["reads_total"] = self._records
            report["percent"] = round(100 * done / self._records, 1) if self._records else 100.0
            if rate:
                report["seconds_left"] = round(max(self._records - done, 0) / rate)
        return report

    def __enter__(self) -> Self:
        self._reporter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._reporter.join()
        if error is None:
            self._say(self.report("done"))
            self._quietly(self._store.delete, self._uri)
        else:
            self._quietly(self._store.put_json, self._uri, self.report("failed") | {"error": str(error)})

    def _report_until_end(self) -> None:
        while not self._ended.wait(self._every_seconds):
            report = self.report()
            self._say(report)
            self._quietly(self._store.put_json, self._uri, report)

    def _say(self, report: Mapping[str, Any]) -> None:
        of = f" of {report['reads_total']:,}" if "reads_total" in report else ""
        resumed = f", {self.parts_resumed:,} of them by an earlier run" if self.parts_resumed else ""
        gpus = f", {report['gpus_busy']} of {report['gpus']:g} GPUs" if report["gpus"] else ""
        print(
            f"{report['reads']:,}{of} reads in {self.parts + self.parts_resumed:,} parts{resumed}; "
            f"{report['rate']:,.0f} reads/s, {report['seconds']:.0f} s; "
            f"busy: {report['cpus_busy']} of {report['cpus']:g} CPUs{gpus}\n"
            f"{PROGRESS_MARK}{json.dumps(report)}",
            flush=True,
        )

    def _quietly(self, action: Callable[..., Any], *arguments: Any) -> None:
        """A report that cannot be stored is no reason to fail the job; it is said once."""
        try:
            action(*arguments)
        except StorageError as error:
            if not self._silent:
                self._silent = True
                print(f"the job goes on, but its progress cannot be stored: {error}", flush=True)
