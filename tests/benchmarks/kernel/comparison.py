"""Part 1: the same answer by the kernel and by what else one could use, on the same cores.

One core against one, two against two, for each dimension; the real vectors on two cores only. Exact ways must
agree: the kernel's with each other in every id and score, a rival's with the kernel's up to ties
(:data:`answers.TIE`); approximate ones are measured by their recall. Ways are taken in turn, round after round, so
that a slow minute of the machine meets all of them; one is not repeated once it has taken :data:`ENOUGH_SECONDS` in
all, and rivals that are always slow run once. A row's seconds are the least of its runs.

Memory over the input is the most that a way held less what it held before it read a vector (for the kernel: what
a run on 64 rows holds), over the bytes of the input. Mapped files do not count: the system can drop their pages.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc_jobs import store
from tests.benchmarks.kernel.answers import TIE, our_answer, recall, worst_loss
from tests.benchmarks.kernel.ours import PRECISIONS, on_cores, run_ours
from tests.benchmarks.kernel.vectors import make_store
from tests.benchmarks.processes import MeasurementFailed, run_measured

K = 10
REPEATS = 3
ENOUGH_SECONDS = 20.0
RIVAL = "faiss.knn"
ONCE = ("faiss.IndexFlatIP", "torch", "scikit-learn", "hnswlib", "pynndescent")
APPROXIMATE = ("hnswlib", "pynndescent")
PYNNDESCENT_DIM = 256
"""The only one that it runs on: each of its processes first compiles for 40 s."""
TINY_ROWS = 64


@dataclass(frozen=True)
class Way:
    """One way to the answer.

    :param name: of a rival, or the precision of ours.
    :param cores: which it may use, as threads or as ranks.
    """

    name: str
    cores: int

    @property
    def ours(self) -> bool:
        """Whether it is the kernel."""
        return self.name in PRECISIONS


def ways(data: str, dim: int, cores: Sequence[int]) -> list[Way]:
    """All that are compared; how long an exact rival takes does not depend on the data, so most run on one set."""
    numbers = cores if data == "clustered" else [max(cores)]
    found = [Way(name, number) for number in numbers for name in (*PRECISIONS, RIVAL)]
    once = ONCE if data == "clustered" else APPROXIMATE
    return [
        *found,
        *(Way(name, max(cores)) for name in once if name != "pynndescent" or dim == PYNNDESCENT_DIM),
    ]


def compare(
    folder: Path, *, rows: int, dims: Sequence[int], data_sets: Sequence[str], cores: Sequence[int]
) -> list[dict[str, Any]]:
    """One row for each data set, dimension and way."""
    return [
        row
        for data in data_sets
        for dim in dims
        for row in one_input(data, make_store(folder, data, rows=rows, dim=dim), folder, cores)
    ]


def one_input(data: str, directory: Path, folder: Path, cores: Sequence[int]) -> list[dict[str, Any]]:
    """All ways on one store."""
    manifest = store.read_manifest(directory)
    tiny = make_store(folder, "clustered", rows=TINY_ROWS, dim=manifest.dim)
    listed = ways(data, manifest.dim, cores)
    runs: dict[Way, list[dict[str, Any]]] = {way: [] for way in listed}
    failed: dict[Way, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        # First, so that what the kernel compiles at its first run is there.
        before = {
            way: _run(way, tiny, Path(scratch) / "tiny")["peak_memory_bytes"] for way in listed if way.ours
        }
        for repeat in range(REPEATS):
            for way in listed:
                taken = sum(run["compare_seconds"] for run in runs[way])
                if way in failed or (repeat and (way.name in ONCE or taken > ENOUGH_SECONDS)):
                    continue
                try:
                    run = _run(way, directory, Path(scratch) / f"{way.name}-{way.cores}")
                    runs[way].append({"memory_before_bytes": before.get(way)} | run)
                except MeasurementFailed as error:
                    if way.ours:
                        raise
                    failed[way] = str(error)[-300:]
        vectors = store.read_vectors(directory, 0, manifest.rows)
        judged = _judge(vectors, [way for way in listed if runs[way]], Path(scratch))
    head = {"data": data, "rows": manifest.rows, "dim": manifest.dim, "k": K}
    input_bytes = manifest.rows * manifest.dim * 4
    return [
        {**head, "way": way.name, "cores": way.cores}
        | (
            {"not_measured": failed[way]}
            if way in failed
            else _row(runs[way], head, input_bytes) | judged[way]
        )
        for way in listed
    ]


def _run(way: Way, directory: Path, out: Path) -> dict[str, Any]:
    if way.ours:
        return run_ours(directory, out, ranks=way.cores, precision=way.name, k=K)
    return run_rival(way, directory, out.with_suffix(".npy"))


def run_rival(way: Way, directory: Path, out: Path) -> dict[str, Any]:
    """One call of a rival, with as many threads as it has cores; its neighbours go to ``out``."""
    command = [sys.executable, "-m", "tests.benchmarks.kernel.rivals", way.name, "--store", str(directory)]
    command += ["--k", str(K), "--threads", str(way.cores), "--out", str(out)]
    ended = run_measured(
        on_cores(way.cores, *command),
        shown=f"{way.name}, {way.cores} threads, {directory.name}",
        environment={"NUMBA_NUM_THREADS": str(way.cores)},
        threads=way.cores,
    )
    found: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
    return {**found, "seconds": round(ended.seconds, 3), "peak_memory_bytes": ended.peak_without_files_bytes}


def _judge(vectors: np.ndarray, listed: Sequence[Way], scratch: Path) -> dict[Way, dict[str, Any]]:
    """Recall or agreement of every way; raises AssertionError where an exact one has another answer."""
    judged: dict[Way, dict[str, Any]] = {}
    ids = scores = None
    for way in sorted(listed, key=lambda way: not way.ours):
        out = scratch / f"{way.name}-{way.cores}"
        if way.ours:
            found = our_answer(out)
            if ids is None or scores is None:
                ids, scores = found
            same = np.array_equal(found[0], ids) and np.array_equal(found[1], scores)
            assert same, f"{way} gives other neighbours or scores than {listed[0]}"
            judged[way] = {"recall": 1.0}
            continue
        assert ids is not None
        theirs = np.load(out.with_suffix(".npy"))
        if way.name in APPROXIMATE:
            judged[way] = {"recall": round(recall(vectors, ids, theirs), 4)}
            continue
        losses = worst_loss(vectors, ids, theirs), worst_loss(vectors, theirs, ids)
        assert max(losses) <= TIE, f"{way} differs from ours by cosines of {losses}: one of both is wrong"
        judged[way] = {"recall": 1.0, "largest_difference": max(losses)}
    return judged


def _row(runs: Sequence[dict[str, Any]], head: dict[str, Any], input_bytes: int) -> dict[str, Any]:
    """The fastest run, with what all took."""
    best = min(runs, key=lambda run: run["compare_seconds"])
    peak = max(run["peak_memory_bytes"] for run in runs)
    return {
        **best,
        "peak_memory_bytes": peak,
        "memory_over_input": round((peak - best["memory_before_bytes"]) / input_bytes, 3),
        "effective_gflops": 2 * head["rows"] ** 2 * head["dim"] / best["compare_seconds"] / 1e9,
        "all_compare_seconds": [run["compare_seconds"] for run in runs],
        "all_seconds": [run["seconds"] for run in runs],
    }
