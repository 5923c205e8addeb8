"""A Ray driver whose one task starts on the worker node, waits there for ever, and elsewhere ends at once.

Its argument is the folder of a counted job (see ``tests/faults/world.py``).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


@ray.remote(max_retries=3)
def work(folder: Path) -> None:
    """Count this start; the first one waits, and every later one leaves the result."""
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    while len((folder / "starts").read_text().split()) == 1:
        time.sleep(0.1)  # until its node is lost
    (folder / "result").write_text("whole\n")


if __name__ == "__main__":
    ray.init(logging_level="WARNING")
    here = ray.get_runtime_context().get_node_id()
    (there,) = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    # Soft: when that node is gone, the task may run here.
    strategy = NodeAffinitySchedulingStrategy(there, soft=True)
    ray.get(work.options(scheduling_strategy=strategy).remote(Path(sys.argv[1])))
