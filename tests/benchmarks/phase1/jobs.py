"""Part 2's measurements, one process each: the whole job in four ways, and its stages alone."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.phase1 import rivals


class Ours:
    """:func:`tasks.embed.embed`, as the Ray job runs it."""

    def __init__(self, data_uri: str, cpus: int, nodes: int = 1) -> None:
        start_nodes(nodes, cpus) if nodes > 1 else rivals.start_ray(cpus)
        self.data_uri = data_uri

    def run(self, batch_id: str, out: str, request: dict[str, Any]) -> int:
        from tasks.embed import embed

        return int(embed(self.data_uri, batch_id)["rows"])


def start_nodes(nodes: int, cpus: int) -> None:
    """A Ray cluster of several nodes on this machine, of so many CPUs each."""
    import os
    import uuid

    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex
    os.environ["RAY_OBJECT_STORE_ALLOW_SLOW_STORAGE"] = "1"
    options = {"num_cpus": cpus, "object_store_memory": 512 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(**options)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)


def stages(data_uri: str, batch_id: str, encoder_uri: str) -> dict[str, Any]:
    """Each stage alone, in one process on one thread: seconds of wall clock, and of this process's CPU."""
    from tasks.batches import Batch, read_request
    from tasks.landing import read_manifest
    from tasks.object_store import ObjectStore
    from tasks.parts import Part, parts_of
    from tasks.shards import commit_part, encode_part

    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    request, (landing, _) = read_request(store, batch), read_manifest(store, batch)
    encoder = rivals.encoder_of(encoder_uri, data_uri)
    dtype = request.vector_dtype

    def parts() -> Iterator[Part]:
        for sample in landing.samples:
            for part in parts_of(store, batch, request, sample, skip=set()):
                assert isinstance(part, Part)
                yield part

    encode_part(next(parts()), encoder, dtype)  # compiles what is compiled
    made: list[Part] = []
    vectors: list[Any] = []
    return {
        "parse and filter": timed(lambda: made.extend(parts())),
        "encode": timed(lambda: vectors.extend(encode_part(part, encoder, dtype) for part in made)),
        "write": timed(
            lambda: [
                commit_part(store, batch, part, found, dtype=dtype)
                for part, found in zip(made, vectors, strict=True)
            ]
        ),
    }


def timed(stage: Callable[[], Any]) -> dict[str, float]:
    """Wall clock and CPU of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    stage()
    return {
        "seconds": round(time.perf_counter() - wall, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
    }


def main() -> None:
    """One way: start the engine, run the small batch, run the batch; the times of the three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=("ours", "loop", "ray", "spark", "stages"))
    parser.add_argument("--data-uri", required=True)
    parser.add_argument(
        "--batches", nargs="+", required=True, help="a small one first, where nothing is warm"
    )
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--out", default="")
    parser.add_argument("--request", type=json.loads, default={})
    parser.add_argument("--cpus", type=int, default=2, help="of each node")
    parser.add_argument("--nodes", type=int, default=1)
    options = parser.parse_args()
    uri, encoder, cpus = options.data_uri, options.encoder, options.cpus
    if options.way == "stages":
        print(json.dumps(stages(uri, options.batches[-1], encoder)))
        return
    started = time.perf_counter()
    ways: dict[str, Callable[[], Any]] = {
        "ours": lambda: Ours(uri, cpus, options.nodes),
        "loop": lambda: rivals.Loop(uri, encoder),
        "ray": lambda: rivals.PlainRay(uri, encoder, cpus),
        "spark": lambda: rivals.Spark(uri, encoder, cpus),
    }
    way = ways[options.way]()
    marks = [time.perf_counter() - started]
    for batch_id in options.batches:
        started = time.perf_counter()
        rows = way.run(batch_id, f"{options.out}/{batch_id}", options.request)
        marks.append(time.perf_counter() - started)
    engine, *batches = (round(seconds, 2) for seconds in marks)
    print(json.dumps({"engine_seconds": engine, "batch_seconds": batches, "rows": rows}), flush=True)
    if options.nodes > 1:
        import ray

        ray.shutdown()  # before the nodes go; the other way round the driver dies of it


if __name__ == "__main__":
    main()
