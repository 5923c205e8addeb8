"""What of the benchmark can be wrong without anybody seeing it in its table."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hpc_jobs import store
from hpc_jobs.mpi_dna_seq.schedule import Schedule
from tasks.cost.prices import current_prices
from tests.benchmarks.bench_daily_run import ROOT
from tests.benchmarks.kernel import prediction
from tests.benchmarks.kernel.answers import recall, worst_loss
from tests.benchmarks.kernel.growth import exponent
from tests.benchmarks.kernel.namespaces import NoNamespaces, nodes
from tests.benchmarks.kernel.rivals import without_self
from tests.benchmarks.kernel.scaling_model import Cluster, cells_seconds, ring_seconds
from tests.benchmarks.kernel.tables import goals
from tests.benchmarks.kernel.vectors import make_store

CLUSTER = Cluster(members=1, ranks=1, pairs_per_second=1e6, alpha_seconds=0.0, bytes_per_second=1e12)


def test_vectors_are_clustered_of_length_1_and_made_once(tmp_path: Path) -> None:
    directory = make_store(tmp_path, "clustered", rows=1000, dim=64)
    vectors = store.read_vectors(directory, 0, 1000)
    assert store.read_manifest(directory).normalised
    nearest = np.sort(vectors @ vectors.T, axis=1)[:, -11:-1]
    assert 0.6 < nearest.mean() < 0.9  # the ten best are of the row's own cluster
    before = (directory / store.MANIFEST).stat().st_mtime_ns
    assert make_store(tmp_path, "clustered", rows=1000, dim=64) == directory
    assert (directory / store.MANIFEST).stat().st_mtime_ns == before


def test_answers_are_compared_by_cosine_so_that_only_ties_may_differ() -> None:
    angles = np.radians([0, 10, -10, 30, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    best = np.array([[1, 2], [0, 2], [0, 1], [1, 0], [1, 2]])
    assert worst_loss(vectors, best, best) == 0
    tie = np.array([[2, 1], [0, 2], [0, 1], [1, 0], [2, 1]])
    assert worst_loss(vectors, best, tie) < 1e-7
    assert recall(vectors, best, tie) == 1
    worse = best.copy()
    worse[0] = [1, 3]  # cos 30 in place of cos 10
    assert worst_loss(vectors, best, worse) == pytest.approx(np.cos(np.radians(10)) - np.cos(np.radians(30)))
    assert worst_loss(vectors, worse, best) == 0
    assert recall(vectors, best, worse) == 0.9
    twice = best.copy()
    twice[0] = [1, 1]
    assert worst_loss(vectors, best, twice) > 1
    assert recall(vectors, best, twice) == 0.9


def test_a_row_is_no_neighbour_of_itself_wherever_it_is_found() -> None:
    found = np.array([[0, 1, 2], [2, 1, 0], [0, 1, 4]])  # first, in the middle, not at all
    assert without_self(found, 2).tolist() == [[1, 2], [2, 0], [0, 1]]


def test_an_exponent_is_found_again() -> None:
    assert exponent([(size, 3 * size**2) for size in (10, 20, 80)]) == pytest.approx(2)
    assert exponent([(10, 1)]) is None


def test_goals_are_compared_with_faiss_and_one_core() -> None:
    head = {"data": "clustered", "rows": 10**6, "dim": 128}
    ours = {"merge_share": 0.2, "memory_over_input": 1.2}
    rows = [
        {**head, **ours, "way": "fp32", "cores": 1, "compare_seconds": 4.0},
        {**head, **ours, "way": "fp32", "cores": 2, "compare_seconds": 2.5},
        {**head, "way": "faiss.knn", "cores": 1, "compare_seconds": 12.0},
        {**head, "way": "faiss.knn", "cores": 2, "compare_seconds": 5.0},
    ]
    found = {what.partition("D = 128, ")[2]: (value, met) for what, _, value, met in goals(rows)}
    assert found["1 cores: over faiss.knn"] == ("3.00x", True)
    assert found["2 cores: over faiss.knn"] == ("2.00x", False)
    assert found["2 cores: efficiency"] == ("80%", False)
    assert found["1 cores: merge"] == ("20%", False)
    assert found["1 cores: memory"] == ("1.20", True)


def test_the_model_of_the_ring_by_hand() -> None:
    alone = ring_seconds(600_000, dim=100, k=10, cluster=CLUSTER)
    assert alone.total == pytest.approx(600_000**2 / 2 / 1e6, rel=0.01)  # chunks are long enough to be fast
    for members in (2, 3, 4, 7):  # a perfect network: the work is shared, in even rings too
        shared = ring_seconds(600_000, dim=100, k=10, cluster=replace(CLUSTER, members=members))
        assert shared.compute == pytest.approx(alone.total / members, rel=0.03)
        assert shared.communication < 1e-3
    # Two members, a network so slow that nothing hides: each sends its half of the rows once, the lists twice.
    slow = replace(CLUSTER, members=2, bytes_per_second=1e3, pairs_per_second=1e12)
    sent = 300_000 * (4 * 100 + 2 * (12 * 10 + 4))
    assert ring_seconds(600_000, dim=100, k=10, cluster=slow).total == pytest.approx(sent / 1e3, rel=0.001)
    # A latency: three arrays of lists there and back, for each piece; vectors do hide.
    far = replace(CLUSTER, members=2, alpha_seconds=0.5)
    pieces = Schedule.of(600_000, ((1, 1),)).pieces
    assert ring_seconds(600_000, dim=100, k=10, cluster=far).communication == pytest.approx(
        3 * pieces, rel=0.001
    )


def test_replication_sends_less() -> None:
    ring = replace(CLUSTER, members=16, bytes_per_second=1e3, pairs_per_second=1e12)
    once = ring_seconds(10**6, dim=100, k=10, cluster=ring)
    twice = ring_seconds(10**6, dim=100, k=10, cluster=replace(ring, layers=2))
    assert 0.5 < twice.communication / once.communication < 0.75


def test_the_model_of_the_cells_by_hand() -> None:
    found = cells_seconds(
        1000, dim=10, k=2, cluster=replace(CLUSTER, pairs_per_second=1.0), cells=10, nprobe=2, imbalance=2.0
    )
    even = (10 * 640 + 1000) * 10 + 1000 * 1000
    assert found.compute == even + 2 * 1000 * 1000 / 10 * 1.5
    assert found.communication < 1e-3
    many = replace(CLUSTER, pairs_per_second=1.0, members=20, ranks=2)  # of 40 ranks 10 have a cell
    found = cells_seconds(1000, dim=10, k=2, cluster=many, cells=10, nprobe=2, imbalance=2.0)
    assert found.compute == even / 40 + 2 * 1000 * 1000 / 10 * 1.5 / 10


def test_the_page_is_what_the_calibration_gives() -> None:
    record = json.loads(prediction.CALIBRATION.read_text())
    page = prediction.PAGE.read_text()
    made = prediction.with_tables(page, prediction.tables(record, current_prices()))
    assert made == page, (
        "the model or the kernel's schedule has changed: `make bench-scaling` writes the page anew"
    )


def test_nodes_have_links_as_slow_as_asked_and_leave_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.kernel.network"]
    environment = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PYTHONPATH": str(ROOT),
    }
    try:
        with nodes(2) as made:
            made.slow_down(80)
            done = subprocess.run(
                [*made.mpirun(), *command],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr
    except NoNamespaces as error:
        pytest.skip(str(error))
    assert 1e6 < json.loads(done.stdout)["bytes_per_second"] < 10.5e6  # 10 MB/s; a busy machine is slower
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert not [name for name in made.names if name in left]
