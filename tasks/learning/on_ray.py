"""Retraining as a Ray Train job: workers that train one encoder together, and go on from their checkpoint where
one of them is lost.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tasks.errors import InvalidInput, StrandloopError
from tasks.learning.job import Job
from tasks.learning.workers import Workers
from tasks.progress import PROGRESS_MARK

if TYPE_CHECKING:  # Ray Tune is loaded only where it searches
    from tasks.learning.search import Search

MAX_CPUS = 2  # of a worker: what the plans were measured on, half a minute to two
MAX_LOST = 3


class TrainingLost(StrandloopError):
    """Workers were lost, or failed, more often than is to be expected, or could not be started."""


def retrain_on_ray(job: Job, *, workers: int = 1, search: Search | None = None) -> dict[str, Any]:
    """Run the job on the cluster that this process is connected to; gives the summary.

    Each of several workers draws pairs of its own, so that a step sees ``workers`` times as many. Each has the
    batches' pairs in memory, from which it draws step by step: 2.1 GB for a million reads of 150 bases with ten
    edges each; the training itself takes 60 MB.

    :raises InvalidInput: what was asked for or landed is wrong, in one sentence.
    :raises TrainingLost: more than three times a worker was lost, or failed otherwise; what is done is kept.
    """
    asked = worker_resources(ray.nodes(), workers)
    with _told_here() as told, tempfile.TemporaryDirectory(prefix="strandloop-training-") as directory:
        trainer = TorchTrainer(
            _work,  # type: ignore[arg-type]  # Ray's annotation leaves the answer out
            train_loop_config={"job": job, "search": search, "told": told},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if asked["GPU"] else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=asked["GPU"] > 0, resources_per_worker=asked
            ),
            run_config=RunConfig(
                name="retraining",
                storage_path=directory,  # not for checkpoints: they go where every node and a later job finds them
                failure_config=FailureConfig(max_failures=MAX_LOST),
            ),
        )
        try:
            answer: dict[str, Any] = trainer.fit().return_value  # type: ignore[attr-defined]  # the first worker's
        except TrainingFailedError as error:
            raise TrainingLost(f"the training was given up: {error}") from error
    if "refused" in answer:
        raise InvalidInput(answer["refused"])
    return answer


def worker_resources(nodes: Sequence[Mapping[str, Any]], workers: int = 1) -> dict[str, float]:
    """What each worker asks for: a GPU where the living nodes have one for each, and two CPUs, or one.

    With no place for them (a head that takes no work, its workers not started yet) two CPUs are asked for, which
    makes the autoscaler start nodes.
    """
    living: list[Mapping[str, float]] = [node["Resources"] for node in nodes if node["Alive"]]
    for gpus in (1, 0):
        for cpus in range(MAX_CPUS, 0, -1):
            places = sum(
                min(node.get("CPU", 0) // cpus, node.get("GPU", 0) if gpus else float("inf"))
                for node in living
            )
            if places >= workers:
                return {"CPU": cpus, "GPU": gpus}
    return {"CPU": MAX_CPUS, "GPU": 0}


def _work(config: dict[str, Any]) -> dict[str, Any] | None:
    """One worker. What no further try can help is an answer, so that Ray Train does not try again."""
    job, told, rank = config["job"], config["told"], Workers.present().rank
    told.put(f"worker {rank} has begun: process {os.getpid()} on {platform.node()}")

    def report(line: str) -> None:
        if rank == 0:
            told.put(line)

    def progress(numbers: dict[str, Any]) -> None:
        report(PROGRESS_MARK + json.dumps(numbers))

    try:
        summary: dict[str, Any] | None = job.run(report=report, progress=progress, search=config["search"])
    except StrandloopError as error:
        if error.retryable:
            raise
        return {"refused": str(error)}
    return summary


@contextmanager
def _told_here() -> Iterator[Queue]:
    """A queue of lines that this process, whose output is the job's log, prints as they come.

    What workers print themselves comes with their name before it, so that nobody would take it for progress.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    told = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def relay() -> None:
        with suppress(RayActorError):
            while (line := told.get()) is not None:
                print(line, flush=True)

    thread = threading.Thread(target=relay, name="told", daemon=True)
    thread.start()
    try:
        yield told
    finally:
        with suppress(RayActorError):
            told.put(None)
        thread.join()
        told.shutdown()
