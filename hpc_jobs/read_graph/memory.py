"""Whether a graph fits the memory of this node: asked before it is built, because the kernel's answer is a kill.

Measured with igraph 1.0 at k = 10 (peak over what was there before, 2 to 6 million k-NN edges): sorting out the
mutual ones took 41 bytes a k-NN edge, communities 148 to 182 bytes a mutual edge and 66 bytes a read that has none.
With the k-NN result itself (24 bytes an edge), and all edges mutual, 128 GiB are enough for some 90 million reads
with k = 10.
"""

from __future__ import annotations

import os
from pathlib import Path

TABLE_BYTES_PER_KNN_EDGE = 24
MUTUAL_BYTES_PER_KNN_EDGE = 42
BYTES_PER_MUTUAL_EDGE = 185
BYTES_PER_READ = 70


class GraphTooLarge(Exception):
    """The graph does not fit the memory that is free on this node."""


def check_knn(edges: int, *, free_bytes: int | None = None) -> None:
    """Refuse a k-NN result of so many (directed) edges whose mutual ones could not be sorted out here."""
    needed = (TABLE_BYTES_PER_KNN_EDGE + MUTUAL_BYTES_PER_KNN_EDGE) * edges
    _check(f"{edges:,} k-NN edges", needed, free_bytes)


def check_graph(reads: int, mutual_edges: int, *, free_bytes: int | None = None) -> None:
    """Refuse a graph of so many reads and undirected edges whose communities could not be found here.

    :param free_bytes: :func:`available_bytes` if not given.
    """
    needed = BYTES_PER_MUTUAL_EDGE * mutual_edges + BYTES_PER_READ * reads
    _check(f"{reads:,} reads with {mutual_edges:,} mutual edges", needed, free_bytes)


def _check(what: str, needed: int, free_bytes: int | None) -> None:
    free = available_bytes() if free_bytes is None else free_bytes
    if needed > free:
        raise GraphTooLarge(
            f"a graph of {what} needs {needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free "
            "here; run this step on a node with more memory, or compute fewer neighbours per read (k)"
        )


def available_bytes(*, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this process may still take: the node's free memory, or less where a control group (Slurm's, a
    container's) allows less.
    """
    if not (proc / "meminfo").exists():  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    for line in (proc / "self" / "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            free = min([free, *_headrooms(cgroups, path, "memory.max", "memory.current", "inactive_file")])
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            free = min([free, *_headrooms(cgroups / "memory", path, *names)])
    return max(free, 0)


def _headrooms(root: Path, path: str, limit_name: str, usage_name: str, cache_name: str) -> list[int]:
    """Limit less usage of a group and of those above it, where there is a limit; file cache that can go is free."""
    found = []
    group = root / path.lstrip("/")
    for directory in (group, *group.parents):
        if not directory.is_relative_to(root):
            break
        try:
            limit = (directory / limit_name).read_text().strip()
            if limit == "max":
                continue
            usage = int((directory / usage_name).read_text())
            statistics = (directory / "memory.stat").read_text().splitlines()
        except OSError:  # not of this name inside of a container, or the root group, which has no limit
            continue
        cache = sum(int(line.split()[1]) for line in statistics if line.split()[0] == cache_name)
        found.append(int(limit) - usage + cache)
    return found
