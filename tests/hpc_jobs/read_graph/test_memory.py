from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hpc_jobs.read_graph import communities, memory
from hpc_jobs.read_graph.memory import GraphTooLarge
from hpc_jobs.read_graph.mutual import Edges

GIB = 2**30
ROOT = Path(__file__).parents[3]


def node(tmp_path: Path, *, free_kib: int, groups: str) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    text = f"MemTotal: 99999999 kB\nMemFree: 5 kB\nMemAvailable: {free_kib} kB\n"
    (tmp_path / "proc" / "meminfo").write_text(text)
    (tmp_path / "proc" / "self" / "cgroup").write_text(groups)
    return tmp_path


def group(directory: Path, **files: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def available(folder: Path) -> int:
    return memory.available_bytes(proc=folder / "proc", cgroups=folder / "cgroup")


def test_without_limits_it_is_the_free_memory_of_the_node(tmp_path: Path) -> None:
    folder = node(tmp_path, free_kib=3 << 20, groups="0::/\n")
    assert available(folder) == 3 * GIB


def test_the_narrowest_of_the_groups_above_decides(tmp_path: Path) -> None:
    folder = node(tmp_path, free_kib=64 << 20, groups="0::/slurm/job_7/step_0\n")
    job = folder / "cgroup" / "slurm" / "job_7"
    stat = f"anon 1\ninactive_file {GIB}\nactive_file 9\n"
    group(job, memory__max=f"{8 * GIB}\n", memory__current=f"{3 * GIB}\n", memory__stat=stat)
    group(job / "step_0", memory__max="max\n", memory__current=f"{GIB}\n", memory__stat="")
    assert available(folder) == 6 * GIB


def test_version_1_of_control_groups(tmp_path: Path) -> None:
    folder = node(tmp_path, free_kib=64 << 20, groups="4:cpu,cpuacct:/x\n3:memory:/slurm/uid_0\n")
    group(
        folder / "cgroup" / "memory" / "slurm" / "uid_0",
        memory__limit_in_bytes=f"{2 * GIB}\n",
        memory__usage_in_bytes=f"{3 * GIB}\n",
        memory__stat="total_inactive_file 5\n",
    )
    assert available(folder) == 0


def test_this_machine_has_memory() -> None:
    assert memory.available_bytes() > 2**20


def test_where_there_is_no_proc_it_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    assert available(tmp_path) > 2**28


def test_a_graph_that_does_not_fit_is_refused_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    memory.check_knn(10**9, free_bytes=62 * GIB)
    with pytest.raises(
        GraphTooLarge, match=r"1,000,000,000 k-NN edges needs 61\.5 GiB .* 61\.0 GiB are free"
    ):
        memory.check_knn(10**9, free_bytes=61 * GIB)
    memory.check_graph(10**8, 5 * 10**8, free_bytes=93 * GIB)
    with pytest.raises(GraphTooLarge, match="100,000,000 reads with 500,000,000 mutual edges"):
        memory.check_graph(10**8, 5 * 10**8, free_bytes=92 * GIB)
    monkeypatch.setattr(memory, "available_bytes", lambda: 300)
    edge = Edges(np.array([1]), np.array([3]), np.array([0.9], np.float32))
    with pytest.raises(GraphTooLarge, match="node with more memory"):
        communities.find_communities(5, edge)


MEASURE = """
import sys
import numpy as np
from hpc_jobs.read_graph.communities import find_communities
from hpc_jobs.read_graph.memory import *
from hpc_jobs.read_graph.mutual import mutual_edges

def most_bytes():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

reads = int(sys.argv[1])
around = np.array([1, 2, 3, 4, 5, -1, -2, -3, -4, -5])
query = np.repeat(np.arange(reads), 10)
neighbour = ((np.arange(reads)[:, None] + around) % reads).ravel()
score = np.random.default_rng(0).random(len(query), np.float32)
before = most_bytes()
edges = mutual_edges(query, neighbour, score)
after = most_bytes()
assert len(edges.first) == 5 * reads
del query, neighbour, score
find_communities(reads, edges)
print((after - before) / (10 * reads * MUTUAL_BYTES_PER_KNN_EDGE))
print((most_bytes() - before) / (5 * reads * BYTES_PER_MUTUAL_EDGE + reads * BYTES_PER_READ))
"""


def test_what_is_said_to_be_needed_is_what_is_taken() -> None:
    """A new igraph may need more: then the numbers of the module are to be measured again."""
    command = [sys.executable, "-c", MEASURE, "50000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    for share in map(float, done.stdout.split()):
        assert 0.5 < share < 1.1
