"""The kernel as it runs: under mpirun, on files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hpc_jobs import neighbours
from tests.hpc_jobs.mpi_dna_seq.kernel_runs import mpirun, unit_vectors, write
from tests.hpc_jobs.mpi_dna_seq.ring_cases import LAYOUTS

Reference = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def kernel(ranks: int, directory: Path, out: Path, *, k: int = 3) -> subprocess.CompletedProcess[str]:
    where = ["--store", str(directory), "--out", str(out), "--k", str(k)]
    return mpirun(ranks, "-m", "hpc_jobs.mpi_dna_seq", *where)


@dataclass(frozen=True)
class Case:
    vectors: np.ndarray
    k: int
    tile: int = 512
    metric: str = "cosine"
    precision: str = "fp32"


def cases() -> list[Case]:
    """More ranks than rows, fewer rows than k, duplicates, zeros, odd shapes, vectors that are not of length 1."""
    duplicates = unit_vectors(200, 24)
    duplicates[np.random.default_rng(0).permutation(200)[:90]] = duplicates[150]
    duplicates[[0, 77, 199]] = 0
    longer = 3 * unit_vectors(263, 40)
    return [
        Case(unit_vectors(0, 4), k=3),
        Case(unit_vectors(1, 4), k=3),
        Case(unit_vectors(5, 16), k=10, tile=2),
        Case(unit_vectors(263, 40), k=10, tile=64),
        Case(duplicates, k=6, tile=32, precision="int8-exact"),
        Case(longer, k=5, tile=32, metric="l2", precision="int8-exact"),
    ]


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the result of each case in each layout, ``<layout>/<number of the case>``."""
    folder = tmp_path_factory.mktemp("cases")
    listed = [
        {
            "store": str(write(folder / f"store-{number}", case.vectors)),
            **{name: value for name, value in vars(case).items() if name != "vectors"},
        }
        for number, case in enumerate(cases())
    ]
    (folder / "cases.json").write_text(json.dumps(listed))
    runner = Path(__file__).with_name("ring_cases.py")
    done = mpirun(8, str(runner), str(folder / "cases.json"), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_ranks_gives_the_neighbours_of_brute_force(
    layout: str, computed: Path, reference: Reference
) -> None:
    for number, case in enumerate(cases()):
        vectors, out = case.vectors, computed / layout / str(number)
        table = neighbours.read(out)
        ids, scores = reference(vectors, case.k, "l2" if case.metric == "l2" else "dot")
        np.testing.assert_array_equal(table["neighbour"], ids.ravel())
        np.testing.assert_array_equal(table["score"], scores.ravel())
        np.testing.assert_array_equal(table["query"], np.repeat(np.arange(len(vectors)), ids.shape[1]))
        np.testing.assert_array_equal(table["rank"], np.tile(np.arange(1, ids.shape[1] + 1), len(vectors)))
        metrics = json.loads((out / "metrics.json").read_text())
        assert metrics["pairs"] == len(vectors) * (len(vectors) - 1) // 2
        assert len(metrics["per_rank"]) == LAYOUTS[layout][0]


def test_vectors_that_are_not_normalised_are_and_a_finished_result_stays(
    tmp_path: Path, reference: Reference
) -> None:
    vectors = unit_vectors(60, 8)
    longer = vectors * np.random.default_rng(0).uniform(0.1, 30, size=(60, 1)).astype(np.float32)
    directory, out = write(tmp_path / "store", longer), tmp_path / "knn"
    assert "done" in kernel(2, directory, out).stdout
    np.testing.assert_array_equal(neighbours.read(out)["neighbour"], reference(vectors, 3)[0].ravel())

    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = kernel(1, directory, out)
    assert (again.returncode, again.stdout.split(":")[0]) == (0, "unchanged")
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before

    assert "done" in kernel(1, directory, out, k=4).stdout
    assert neighbours.verify(out).k == 4
    assert sorted(path.name for path in out.iterdir()) == [
        "knn-00000.parquet",
        "manifest.json",
        "metrics.json",
        "progress.json",
    ]
    assert json.loads((out / "progress.json").read_text())["status"] == "done"


def test_one_rank_refuses_nan_with_the_read_ids(tmp_path: Path) -> None:
    vectors = unit_vectors(100, 8)
    vectors[[1, 90], 3] = np.nan
    done = kernel(2, write(tmp_path / "store", vectors), tmp_path / "knn")
    assert done.returncode == 1
    assert done.stderr.count("refused:") == 1
    assert "ecoli:2 (row 1)" in done.stderr
    assert "1 more ranks" in done.stderr
    assert neighbours.find(tmp_path / "knn") is None


def test_a_damaged_or_missing_store_is_refused(tmp_path: Path) -> None:
    directory = write(tmp_path / "store", unit_vectors(100, 8))
    shard = directory / "part-00001.parquet"
    body = bytearray(shard.read_bytes())
    body[40] ^= 1
    shard.write_bytes(body)
    damaged = kernel(2, directory, tmp_path / "knn")
    assert damaged.returncode == 1
    assert damaged.stderr.count("part-00001.parquet does not have the SHA-256") == 1
    missing = kernel(1, tmp_path / "nowhere", tmp_path / "knn")
    assert (missing.returncode, missing.stderr.count("has no manifest.json")) == (1, 1)


def test_a_rank_that_fails_takes_the_others_down(tmp_path: Path) -> None:
    """A file stands where the output directory should be: rank 0 alone fails, the other waits for it."""
    (tmp_path / "knn").write_text("")
    done = kernel(2, write(tmp_path / "store", unit_vectors(10, 4)), tmp_path / "knn")
    assert done.returncode != 0
    assert done.stderr.count("rank 0 on") == 1
