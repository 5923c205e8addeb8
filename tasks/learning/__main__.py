"""``python -m tasks.learning --data-uri s3://… --batch-id …``: retrain a batch's encoder.

As a Ray job, this process runs on the head node and hands the training to one Ray task, so that a worker does
it; elsewhere it trains where it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from tasks.batches import Batch
from tasks.errors import StrandloopError
from tasks.object_store import ObjectStore

MAX_CPUS = 2  # what the plans were measured on: half a minute to two


def main(arguments: list[str] | None = None) -> int:
    """Retrain, and print the summary as one line of JSON; one sentence and an exit status of its kind where not."""
    parser = argparse.ArgumentParser(prog="python -m tasks.learning", description=__doc__)
    parser.add_argument("--data-uri", required=True, help="root of all data, s3://bucket[/prefix]")
    parser.add_argument("--batch-id", required=True)
    chosen = parser.parse_args(arguments)
    try:
        in_ray_job = "RAY_ADDRESS" in os.environ
        summary = (_on_ray if in_ray_job else _here)(chosen.data_uri, chosen.batch_id)
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if summary["status"] == "unchanged":
        print("unchanged: this batch was already learnt from")
    print(json.dumps(summary, sort_keys=True))
    return 0


def _here(data_uri: str, batch_id: str) -> dict[str, Any]:
    from tasks.learning.retrain import retrain

    return retrain(
        ObjectStore(), Batch(data_uri, batch_id), report=lambda line: print(line, file=sys.stderr, flush=True)
    )


def _on_ray(data_uri: str, batch_id: str) -> dict[str, Any]:
    import ray

    ray.init(address="auto")
    task = ray.remote(_here).options(
        name=f"retrain {batch_id}",
        # Threads that sleep while they wait: on a node that does other work too, spinning was 4 times slower.
        runtime_env={"env_vars": {"OMP_WAIT_POLICY": "PASSIVE"}},
        **_resources(ray.nodes()),
    )
    try:
        summary: dict[str, Any] = ray.get(task.remote(data_uri, batch_id))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, StrandloopError):
            raise error.cause from None  # the sentence for people, without the worker's traceback
        raise
    return summary


def _resources(nodes: list[dict[str, Any]]) -> dict[str, float]:
    """What to ask for: as many CPUs as the largest living node has, at most two, and a GPU if it has one.

    With no node that has CPUs (a head that takes no work, its workers not started yet) two CPUs are asked for,
    which makes the autoscaler start one.
    """
    living: list[dict[str, float]] = [node["Resources"] for node in nodes if node["Alive"]]
    largest = max(
        living, key=lambda node: (node.get("GPU", 0) > 0, node.get("CPU", 0)), default=dict[str, float]()
    )
    cpus = min(MAX_CPUS, largest.get("CPU", 0)) or MAX_CPUS
    return {"num_cpus": cpus, "num_gpus": 1 if largest.get("GPU", 0) >= 1 else 0}


if __name__ == "__main__":
    sys.exit(main())
