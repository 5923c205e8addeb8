"""The requirement files agree with each other, and none brings what its machine must not download."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def _pins(path: str) -> dict[str, set[str]]:
    """Package name to the ``version ; marker`` texts of a requirements file."""
    pins: dict[str, set[str]] = {}
    for line in (PROJECT / path).read_text().splitlines():
        if match := re.match(r"([a-z0-9._-]+)(?:\[.*?\])?==(.+)", line):
            pins.setdefault(match[1], set()).add(match[2])
    return pins


def test_slurm_nodes_have_the_versions_of_the_project() -> None:
    project, nodes = _pins("requirements.txt"), _pins("hpc_jobs/requirements.txt")
    assert {"numpy", "mpi4py", "pyarrow", "boto3", "igraph"} <= nodes.keys()
    assert nodes.items() <= project.items()


def test_the_lock_leaves_cuda_to_pytorch() -> None:
    assert not [name for name in _pins("requirements.txt") if re.match(r"nvidia|cuda|triton", name)]


@pytest.mark.parametrize("heavy", ["torch", "ray", "transformers", "mpi4py"])
def test_mwaa_installs_nothing_that_runs_elsewhere(heavy: str) -> None:
    wanted = (PROJECT / "infra/mwaa/requirements.in").read_text()
    assert not re.search(rf"^{heavy}\b", wanted, re.MULTILINE)
