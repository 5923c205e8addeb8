"""``python -m tasks.learning --data-uri s3://… --batch-id …``: retrain the encoder of a batch, or of several.

As a Ray job, this process runs on the head node and hands the training to workers (:mod:`tasks.learning.on_ray`);
elsewhere it trains where it is. A run that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from tasks import results
from tasks.batches import Batch
from tasks.errors import InvalidInput, StrandloopError
from tasks.learning.job import Job
from tasks.object_store import ObjectStore


def main(arguments: list[str] | None = None) -> int:
    """Retrain, and print the summary as one line of JSON; one sentence and an exit status of its kind where not."""
    chosen = _parser().parse_args(arguments)
    in_ray_job = "RAY_ADDRESS" in os.environ
    try:
        if not in_ray_job and (chosen.workers > 1 or chosen.tune):
            raise InvalidInput("--workers and --tune need a Ray cluster: submit this command to one as a job")
        batches = tuple(Batch(chosen.data_uri, batch_id) for batch_id in chosen.batch_id)
        job = Job(batches, propose=chosen.propose, checkpoint_seconds=chosen.checkpoint_seconds)
        summary = _on_ray(job, chosen) if in_ray_job and _has_work(job) else _here(job)
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if summary["status"] == "unchanged":
        print("unchanged: this was already learnt from")
    print(json.dumps(summary, sort_keys=True))
    return 0


def _here(job: Job) -> dict[str, Any]:
    summary = job.run(report=lambda line: print(line, file=sys.stderr, flush=True))
    assert summary is not None  # this process is the first of one
    return summary


def _on_ray(job: Job, chosen: argparse.Namespace) -> dict[str, Any]:
    import ray

    from tasks.learning.on_ray import retrain_on_ray, worker_resources

    of_workers = {
        # Threads that sleep while they wait: on a node that does other work too, spinning was 4 times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        # Ray Train looks the cluster up once a second, and where a machine has several, it may find another one.
        "RAY_ADDRESS": os.environ["RAY_ADDRESS"],
    }
    ray.init(address="auto", runtime_env={"env_vars": of_workers})
    search = None
    if chosen.tune:
        from tasks.learning.search import search_plan

        search = search_plan(
            job,
            trials=chosen.trials,
            budget_usd=chosen.budget_usd,
            instance_type=chosen.instance_type,
            resources=worker_resources(ray.nodes()),
        )
    return retrain_on_ray(job, workers=chosen.workers, search=search)


def _has_work(job: Job) -> bool:
    """Whether a batch was not learnt from yet; workers are not started for batches without a common encoder.

    :raises InvalidInput: a batch has no pinned encoder, or another one than the others.
    """
    from tasks.learning.lessons import encoder_of

    store = ObjectStore()
    fresh = [batch for batch in job.batches if results.find(store, batch.results / "retraining") is None]
    if fresh:
        encoder_of(store, fresh)
    return bool(fresh)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.learning", description=__doc__)
    parser.add_argument("--data-uri", required=True, help="root of all data, s3://bucket[/prefix]")
    parser.add_argument("--batch-id", required=True, nargs="+", help="of one encoder")
    parser.add_argument("--propose", action="store_true", help="leave the promotion to a person")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=30.0,
        help="between two checkpoints (default: %(default)g)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="that train together (default: %(default)s); Ray only"
    )
    parser.add_argument("--tune", action="store_true", help="search for a better plan first; Ray only")
    parser.add_argument("--trials", type=int, default=4, help="of --tune (default: %(default)s)")
    parser.add_argument("--budget-usd", type=float, default=1.0, help="of --tune (default: %(default)g)")
    parser.add_argument(
        "--instance-type", default="c7i.2xlarge", help="whose price --tune counts with (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
