"""What a run took: progress while it runs, ``metrics.json`` at the end."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mpi4py import MPI

from hpc_jobs.checked_file import write_whole

PROGRESS_SECONDS = 5.0
JOB_DIRECTORY = "STRANDLOOP_JOB_DIR"
"""Environment variable: where those who watch the batch job look for its ``progress.json``."""


@dataclass(frozen=True)
class RankMetrics:
    """What one rank did in this run.

    :param host: the machine that it ran on.
    :param rows: of its strip.
    :param pairs: compared by this rank.
    :param pairs_scored: those of them that no threshold excluded and that were scored exactly.
    :param pairs_in_fp32: those of them that int8-exact left to float32, because it would not have paid.
    :param load_seconds: verifying and reading its rows.
    :param compare_seconds: the whole comparison, from the first tile to the slowest rank's last. Of it:
    :param product_seconds: matrix products.
    :param merge_seconds: looking for pairs that reach a threshold, scoring and inserting them.
    :param communication_seconds: in messages that could not be hidden behind the comparison, and waiting for those
        who send them; only one rank of a node sends and receives.
    :param waiting_seconds: for the other ranks of the node.
    :param checkpoint_seconds: saving, and restoring what an earlier run had saved.
    :param write_seconds: writing its part of the result.
    :param peak_memory_bytes: resident at most; memory that ranks share is counted in each of them.
    :param memory_bytes: after the comparison, all buffers still there; memory that n processes share counts as 1/n,
        so the sum over the ranks of a node is what the node had in use. 0 where the system does not tell.
    """

    rank: int
    host: str
    rows: int
    pairs: int
    pairs_scored: int
    pairs_in_fp32: int
    load_seconds: float
    compare_seconds: float
    product_seconds: float
    merge_seconds: float
    communication_seconds: float
    waiting_seconds: float
    checkpoint_seconds: float
    write_seconds: float
    peak_memory_bytes: int
    memory_bytes: int


def summary(ranks: Sequence[RankMetrics], *, dim: int, rows: int, seconds: float) -> dict[str, Any]:
    """The fields of ``metrics.json`` that follow from those of the ranks.

    ``effective_gflops`` is 4 * pairs * dim / ``compare_seconds``: what a plain matrix product of all against
    all, 2 * rows^2 * dim operations, would have to reach to be as fast.
    """
    compare = max(rank.compare_seconds for rank in ranks)
    pairs = sum(rank.pairs for rank in ranks)
    hosts = {rank.host for rank in ranks}
    return {
        "rows": rows,
        "dim": dim,
        "ranks": len(ranks),
        "nodes": len(hosts),
        "seconds": seconds,
        "compare_seconds": compare,
        "pairs": pairs,
        "pairs_scored": sum(rank.pairs_scored for rank in ranks),
        "pairs_in_fp32": sum(rank.pairs_in_fp32 for rank in ranks),
        "pairs_per_second": pairs / compare,
        "effective_gflops": 4 * pairs * dim / compare / 1e9,
        "input_bytes": 4 * rows * dim,
        "memory_bytes": {
            host: sum(r.memory_bytes for r in ranks if r.host == host) for host in sorted(hosts)
        },
        "per_rank": [asdict(rank) for rank in ranks],
    }


def memory_bytes() -> int:
    """What this process has in memory, with its share of what it shares with others; 0 where Linux is not."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


class Progress:
    """Tells, from rank 0 and every few seconds, how far the run is: a line, and ``progress.json`` in ``out``.

    It goes by the pairs of rank 0: all ranks have the same share.

    :param pairs: of the whole run.
    :param done: of those, compared by an earlier run.
    """

    def __init__(self, comm: MPI.Comm, out: Path, *, pairs: int, done: int = 0) -> None:
        self._speaks = comm.rank == 0
        self._size = comm.size
        self._pairs = max(pairs, 1)
        self._done_before = done
        self._fraction = done / self._pairs
        self._rate = 0.0
        self._began = self._said = time.perf_counter()
        self._files = [out / "progress.json"]
        if job := os.environ.get(JOB_DIRECTORY):
            self._files.append(Path(job) / "progress.json")

    def report(self, pairs: int) -> None:
        """Say something if it is time to.

        :param pairs: pairs that this rank has compared so far in this run.
        """
        now = time.perf_counter()
        if not self._speaks or now - self._said < PROGRESS_SECONDS:
            return
        self._said = now
        self._rate = pairs * self._size / (now - self._began)
        self._fraction = min((self._done_before + pairs * self._size) / self._pairs, 1.0)
        left = self._seconds_left()
        print(f"{self._fraction:6.1%}, {self._rate:.3g} pairs/s, about {left:,.0f} s left", flush=True)
        self.write("running")

    def write(self, status: str) -> None:
        """Write ``progress.json``: ``running``, ``saved`` (will go on when it is started again) or ``done``."""
        if not self._speaks:
            return
        fields: dict[str, Any] = {
            "status": status,
            "percent": 100.0 if status == "done" else round(100 * self._fraction, 1),
            "unit": "pairs",
            "pairs_total": self._pairs,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if self._rate:
            fields["rate"] = round(self._rate)
        if status == "running" and self._rate:
            fields["seconds_left"] = round(self._seconds_left())
        for path in self._files:
            try:
                write_whole(path, json.dumps(fields).encode() + b"\n")
            except OSError as error:  # no reason to fail the run
                print(f"the run goes on, but {path} cannot be written: {error}", flush=True)

    def _seconds_left(self) -> float:
        return (1 - self._fraction) * self._pairs / max(self._rate, 1.0)
