"""The pipeline of phase 1 on Ray Data: samples -> parts -> commits, streaming, with bounded memory."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.state import actors
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError

from tasks.batches import Batch, BatchRequest
from tasks.encoders.protocol import EncoderUri
from tasks.errors import StrandloopError
from tasks.landing import LandingManifest
from tasks.stages import EncodeAndCommit, ReadParts

PART_BYTES = 1 << 20
"""Ray Data hands a block on once it is this large; a part of short reads is larger, so parts do not pile up."""
RECORDS_A_PART = 20_000
MOST_THREADS = 4
"""Of an encoder on CPUs. More would wait for Python's lock; fewer mean more processes, of 3 CPU seconds each to
start."""
CPU_ONLY_ENCODERS = {"kmer", "sketch"}


class PipelineStalled(StrandloopError):
    """Nothing moved for so long that something must be wrong; another try may find a healthier cluster."""


@dataclass(frozen=True)
class Shares:
    """What a reader and an encoder ask Ray for.

    Never the same: stages of equal resources are fused into one, and parsing would wait for encoding. On CPUs an
    encoder has a thread for each CPU of its share of a node, and beside it there is room for a reader, so that
    readers are never locked out: Ray Data reserves a quarter of the cluster for each stage.
    """

    reader_cpus: float
    encoder_cpus: float
    encoder_gpus: int
    encoder_threads: int

    @classmethod
    def on(cls, nodes: list[dict[str, float]], encoder_uri: str) -> Shares:
        """A GPU for each encoder where a node has some and the encoder can use them; else CPUs.

        :param nodes: the resources of each node that is there.
        """
        has_gpu = any(node.get("GPU", 0) for node in nodes)
        if has_gpu and EncoderUri.parse(encoder_uri).scheme not in CPU_ONLY_ENCODERS:
            return cls(reader_cpus=0.75, encoder_cpus=0.25, encoder_gpus=1, encoder_threads=1)
        smallest = min((int(cpus) for node in nodes if (cpus := node.get("CPU", 0)) >= 1), default=1)
        threads = max(threads for threads in range(1, MOST_THREADS + 1) if smallest % threads == 0)
        return cls(
            reader_cpus=min(0.25 * threads, 0.5),  # parsing is the faster stage
            encoder_cpus=0.75 * threads,
            encoder_gpus=0,
            encoder_threads=threads,
        )

    def encoders_on(self, node: dict[str, float]) -> int:
        """How many encoders a node holds while there is room for as many readers."""
        on_cpus = int(node.get("CPU", 0) // (self.reader_cpus + self.encoder_cpus))
        return min(on_cpus, int(node.get("GPU", 0))) if self.encoder_gpus else on_cpus


def pipeline(
    batch: Batch,
    request: BatchRequest,
    landing: LandingManifest,
    encoder_uri: str,
    *,
    stall_seconds: float,
) -> Dataset:
    """The dataset whose rows are :data:`tasks.stages.DONE_ROW`, one for each part or failure.

    The pool starts with as many encoders as the nodes hold that are there, and grows with the cluster.

    :param stall_seconds: see :func:`finished_parts`.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    shares = Shares.on(nodes, encoder_uri)
    there = sum(map(shares.encoders_on, nodes))
    wanted = max(1, min(there, -(-_parts_expected(landing) // shares.encoder_threads)))
    calls = 2 * shares.encoder_threads  # half of them write or wait for the network meanwhile
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = PART_BYTES
    context.execution_no_progress_timeout_s = stall_seconds
    with DataContext.current(context):
        samples = ray.data.from_items(
            [{"sample": pickle.dumps(sample)} for sample in landing.samples],
            override_num_blocks=len(landing.samples),
        )
        parts = samples.map_batches(
            ReadParts(batch, request), batch_size=1, batch_format="pyarrow", num_cpus=shares.reader_cpus
        )
        return parts.map_batches(
            EncodeAndCommit,
            fn_constructor_args=(batch, request, encoder_uri, shares.encoder_threads),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=shares.encoder_cpus,
            num_gpus=shares.encoder_gpus or None,
            compute=ActorPoolStrategy(
                min_size=1,
                max_size=None,
                initial_size=wanted,
                max_tasks_in_flight_per_actor=2 * calls,
                max_concurrent_calls_per_actor=calls,
                enable_true_multi_threading=True,
            ),
        )


def finished_parts(parts: Dataset) -> Iterator[dict[str, Any]]:
    """Run the pipeline: its rows as parts are finished.

    :raises StrandloopError: the first failure of a stage.
    :raises PipelineStalled: no part moved for ``stall_seconds``.
    """
    try:
        for row in parts.iter_rows():
            if row["failure"] is not None:
                raise pickle.loads(row["failure"])
            yield row
    except ExecutionTimeoutError as error:
        stages, _, _ = str(error).partition("\nIf this is expected")
        raise PipelineStalled(
            f"{stages}\n{_cluster()}\nLook at the workers' logs in the Ray dashboard; a retry goes on where this "
            "run stopped. If a part may take longer than that, give --stall-seconds"
        ) from error


def _cluster() -> str:
    """What the cluster has, what of it is free, and which of its actors wait."""
    alive = Counter(node["Alive"] for node in ray.nodes())
    has, free = ray.cluster_resources(), ray.available_resources()
    amounts = ", ".join(
        f"{free.get(name, 0):g} of {has.get(name, 0):g} {name}s free" for name in ("CPU", "GPU")
    )
    states = Counter(actor["State"] for actor in actors().values())
    known = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"Cluster: {alive[True]} nodes alive, {alive[False]} lost; {amounts}; actors: {known or 'none'}."


def _parts_expected(landing: LandingManifest) -> int:
    """At most so many parts, as far as the manifest knows; a small batch needs no large pool."""
    counts = [file.records for sample in landing.samples for file in sample.files]
    if any(count is None for count in counts):
        return 1 << 30
    return sum(-(-(count or 0) // RECORDS_A_PART) for count in counts)
