"""The approximate search: definite, the same for every number of ranks, and good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpc_jobs import neighbours, store
from hpc_jobs.mpi_dna_seq.cells import Plan
from hpc_jobs.mpi_dna_seq.kmeans import spread_rows
from hpc_jobs.mpi_dna_seq.tiles import Best, Block, comparison

ROOT = Path(__file__).parents[3]
RANKS = (1, 2, 3, 5)


def mpirun(ranks: int, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # containers forbid process_vm_readv
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    launch = ["mpirun", "--quiet", "--bind-to", "none", "-np", str(ranks), sys.executable]
    return subprocess.run([*launch, *command], env=environment, capture_output=True, text=True, timeout=120)


@dataclass(frozen=True)
class Case:
    vectors: np.ndarray
    cells: int
    nprobe: int
    k: int = 5
    metric: str = "cosine"
    precision: str = "fp32"


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def clustered(rows: int, dim: int, groups: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, dim))
    return centres[rng.integers(0, groups, rows)] + rng.normal(scale=0.35, size=(rows, dim))


@cache
def cases() -> dict[str, Case]:
    ties = np.repeat(unit(np.random.default_rng(7).normal(size=(30, 8))), 10, axis=0)
    ties = ties[np.random.default_rng(8).permutation(300)]
    ties[[0, 150, 299]] = 0
    random = np.random.default_rng(9).normal(size=(400, 12))
    return {
        "clustered": Case(unit(clustered(1500, 24, 40, 1)), cells=30, nprobe=6, k=10),
        "clustered, one cell each": Case(unit(clustered(1500, 24, 40, 1)), cells=30, nprobe=1, k=10),
        "int8": Case(unit(clustered(1500, 24, 40, 1)), cells=30, nprobe=6, k=10, precision="int8-exact"),
        "distances": Case(clustered(900, 16, 30, 2).astype(np.float32) * 30, cells=20, nprobe=5, metric="l2"),
        "all cells": Case(unit(random), cells=9, nprobe=9),
        "all cells, distances": Case(random.astype(np.float32), cells=9, nprobe=9, metric="l2"),
        "one cell": Case(unit(random), cells=1, nprobe=1),
        "ties": Case(ties, cells=12, nprobe=12, k=12),
        "ties, few cells": Case(ties, cells=12, nprobe=2, k=12),
        "fewer in a cell than k": Case(unit(random[:60]), cells=40, nprobe=2, k=9),
        "a cell for each row": Case(unit(random[:30]), cells=30, nprobe=3, k=4),
        "as many neighbours as there are": Case(unit(random[:7]), cells=3, nprobe=1, k=6),
        "fewer rows than ranks": Case(unit(random[:3]), cells=2, nprobe=1, k=2),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    described = []
    for number, case in enumerate(cases().values()):
        np.save(folder / f"{number}.npy", case.vectors)
        described.append({name: value for name, value in vars(case).items() if name != "vectors"})
    (folder / "cases.json").write_text(json.dumps(described))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OPENBLAS_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # containers forbid process_vm_readv
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    runner = [
        "-m",
        "mpi4py",
        str(Path(__file__).with_name("cells_cases.py")),
    ]  # which ends all ranks if one fails
    command = ["mpirun", "--quiet", "--bind-to", "none", "-np", "5", sys.executable, *runner, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def found(folder: Path, name: str, ranks: int = 1) -> dict[str, Any]:
    number = list(cases()).index(name)
    return dict(np.load(folder / str(ranks) / f"{number}.npz"))


@cache
def exact(name: str) -> Best:
    case = cases()[name]
    best = Best.empty(len(case.vectors), case.k)
    comparison(metric=case.metric, dim=case.vectors.shape[1]).within(Block(0, case.vectors, best))
    return best


@pytest.mark.parametrize("name", cases())
def test_every_number_of_ranks_gives_the_same_answer(folder: Path, name: str) -> None:
    alone = found(folder, name)
    for ranks in RANKS[1:]:
        answer = found(folder, name, ranks)
        assert answer.keys() == alone.keys()
        for key in alone:
            np.testing.assert_array_equal(answer[key], alone[key])


@pytest.mark.parametrize("name", [name for name, case in cases().items() if case.nprobe == case.cells])
def test_looking_in_all_cells_is_exact(folder: Path, name: str) -> None:
    answer = found(folder, name, 3)
    np.testing.assert_array_equal(answer["ids"], exact(name).ids)
    np.testing.assert_array_equal(answer["scores"], exact(name).scores)
    assert answer["recall"] == 1


@pytest.mark.parametrize("name", cases())
def test_lists_are_full_ordered_and_of_true_scores(folder: Path, name: str) -> None:
    case, answer = cases()[name], found(folder, name, 2)
    ids, scores = answer["ids"], answer["scores"]
    rows = np.arange(len(case.vectors))[:, None]
    assert ids.shape == (len(rows), case.k)
    assert ((ids >= 0) & (ids < len(rows)) & (ids != rows)).all()
    later = (scores[:, 1:] < scores[:, :-1]) | (
        (scores[:, 1:] == scores[:, :-1]) & (ids[:, 1:] > ids[:, :-1])
    )
    assert later.all()
    own, others = case.vectors[rows].astype(np.float64), case.vectors[ids].astype(np.float64)
    true = -((own - others) ** 2).sum(2) if case.metric == "l2" else (own * others).sum(2)
    np.testing.assert_allclose(scores, true, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", cases())
def test_the_recall_that_is_measured_is_the_recall(folder: Path, name: str) -> None:
    answer, best = found(folder, name, 5), exact(name)
    hits = answer["scores"] >= best.scores[:, -1:]
    rows = len(cases()[name].vectors)
    assert answer["recall_rows"] == min(rows, 1000)
    if rows <= 1000:  # all of them were looked at
        assert answer["recall"] == pytest.approx(hits.mean(), abs=1e-12)
    else:
        assert answer["recall"] == pytest.approx(hits.mean(), abs=0.02)


def test_clustered_rows_are_found_in_a_few_cells(folder: Path) -> None:
    few, one = found(folder, "clustered"), found(folder, "clustered, one cell each")
    assert few["recall"] > 0.95
    assert 0.3 < one["recall"] < few["recall"]
    assert found(folder, "distances")["recall"] > 0.95


def test_the_precision_of_the_product_does_not_change_the_answer(folder: Path) -> None:
    np.testing.assert_array_equal(found(folder, "int8")["ids"], found(folder, "clustered")["ids"])


def test_a_row_that_meets_too_few_others_is_compared_with_all(folder: Path) -> None:
    answer, best = found(folder, "fewer in a cell than k", 3), exact("fewer in a cell than k")
    assert 0 < answer["completed_rows"] <= 60
    same = (answer["ids"] == best.ids).all(axis=1)
    assert same.sum() >= answer["completed_rows"]
    assert found(folder, "clustered")["completed_rows"] == 0


def test_a_plan_shares_the_work_and_keeps_to_the_rows_that_fit() -> None:
    rng = np.random.default_rng(0)
    homes, visits = rng.integers(0, 200, 300), rng.integers(0, 900, 300)
    homes[[3, 80]] = 0
    plan = Plan.of(homes, visits, ranks=7, rows_at_once=5000)
    work = homes * (homes - 1) // 2 + homes * visits
    assert (plan.turn[work == 0] == -1).all()
    shares = np.bincount(plan.rank, weights=work, minlength=7)
    assert shares.max() < 1.1 * shares.mean()
    incoming = np.zeros((7, plan.turns))
    busy = work > 0
    np.add.at(incoming, (plan.rank[busy], plan.turn[busy]), (homes + visits)[busy])
    assert incoming[:, :-1].min() > 0
    assert incoming.max() <= 5000
    assert Plan.of(np.array([10]), np.array([9]), ranks=2, rows_at_once=5).turns == 1
    assert Plan.of(np.array([0]), np.array([9]), ranks=2, rows_at_once=5).turns == 0


@pytest.mark.parametrize(("rows", "count"), [(10, 10), (15, 10), (1_000_003, 1000), (0, 0), (1, 1)])
def test_sampled_rows_are_different_and_from_everywhere(rows: int, count: int) -> None:
    sampled = spread_rows(rows, count, np.random.default_rng(0))
    assert len(np.unique(sampled)) == len(sampled) == count
    assert ((sampled >= 0) & (sampled < rows)).all()
    assert (np.diff(sampled) <= 2 * rows / max(count, 1) + 1).all()


def test_a_run_writes_its_recall_into_manifest_and_metrics(folder: Path, tmp_path: Path) -> None:
    vectors = cases()["clustered"].vectors
    ids = pa.array([f"s:{row}" for row in range(len(vectors))])
    store.write_store(tmp_path / "store", ids, vectors, encoder_uri="e", encoder_revision="r")
    out = tmp_path / "knn"
    command = [
        "-m",
        "hpc_jobs.mpi_dna_seq",
        "--store",
        str(tmp_path / "store"),
        "--out",
        str(out),
        "--k",
        "10",
    ]
    few = ["--approximate", "--cells", "30", "--nprobe", "6"]
    done = mpirun(2, *command, *few)
    assert done.returncode == 0, done.stderr
    answer = found(folder, "clustered")
    told = {"cells": 30, "nprobe": 6, "seed": 1, "recall": float(answer["recall"]), "recall_rows": 1000}
    told["completed_rows"] = 0
    assert neighbours.verify(out).approximate == told
    assert json.loads((out / "metrics.json").read_text())["approximate"] == told
    table = neighbours.read(out)
    np.testing.assert_array_equal(table["neighbour"], answer["ids"].ravel())
    np.testing.assert_array_equal(table["score"], answer["scores"].ravel())

    assert mpirun(1, *command, *few).stdout.startswith("unchanged")
    assert "done" in mpirun(1, *command).stdout
    assert neighbours.verify(out).approximate is None
    np.testing.assert_array_equal(neighbours.read(out)["neighbour"], exact("clustered").ids.ravel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--approximate", "--cells", "4"], "4 cells cannot be made of 3 vectors"),
        (["--approximate", "--cells", "2", "--nprobe", "3"], "a row cannot look in 3 of 2 cells"),
        (["--approximate", "--metric", "dot"], "--approximate goes with cosine and l2"),
        (["--nprobe", "3"], "go with --approximate"),
    ],
)
def test_what_cannot_be_searched_is_refused(tmp_path: Path, options: list[str], message: str) -> None:
    vectors = unit(np.eye(3, 4))
    store.write_store(
        tmp_path / "s", pa.array(["a", "b", "c"]), vectors, encoder_uri="e", encoder_revision="r"
    )
    where = ["--store", str(tmp_path / "s"), "--out", str(tmp_path / "knn")]
    done = mpirun(1, "-m", "hpc_jobs.mpi_dna_seq", *where, *options)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
