"""Phase 1 as a Ray job: ``python -m tasks.embed --data-uri s3://strandloop --batch-id 2026-11-20``.

Readers parse and filter, one sample each (:mod:`tasks.parts`); encoder actors turn parts into vectors and commit
them (:mod:`tasks.stages`, :mod:`tasks.shards`); the driver, here, checks that every record is accounted for and
publishes the results (:mod:`tasks.publication`). A restart skips what is committed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray.exceptions import RayTaskError

from tasks.batch_encoder import pin_encoder
from tasks.batches import Batch, BatchRequest, read_request
from tasks.encoders.protocol import load_encoder
from tasks.errors import InvalidInput, StrandloopError
from tasks.landing import LandingManifest, read_manifest
from tasks.learning.first_version import needs_training
from tasks.object_store import ObjectStore
from tasks.pipeline import finished_parts, pipeline
from tasks.progress import Progress
from tasks.publication import publish
from tasks.shards import Commit, read_commit

TRAINING_CPUS = 2
STALL_SECONDS = 900.0
PARALLEL_READS = 16
STAGES = ("read", "encode", "store")


def embed(data_uri: str, batch_id: str, *, stall_seconds: float = STALL_SECONDS) -> dict[str, Any]:
    """Embed a batch on the Ray cluster of this job, or on a local one; gives the summary that the job prints.

    While it runs, ``batches/<id>/progress.json`` says how far it is; see :class:`tasks.progress.Progress`.

    :param stall_seconds: the job fails if no part moves for so long.
    :raises InvalidReads: a file is damaged, too many records cannot be parsed, or no read is kept.
    :raises InvalidInput: the batch was not requested.
    :raises PipelineStalled: see ``stall_seconds``.
    """
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    manifest_uri = batch.results / "embeddings" / "manifest.json"
    if store.head(manifest_uri):
        return {"status": "unchanged", "rows": store.get_json(manifest_uri)["rows"]}
    request, (landing, _) = _requested(store, batch), read_manifest(store, batch)
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    print(f"encoder asked for: {request.encoder}", flush=True)
    if needs_training(store, batch, request.encoder):
        pin = ray.remote(num_cpus=_training_cpus())(pin_encoder)
        encoder_uri = _answer(pin.remote(data_uri, batch_id, request, landing))
    else:
        encoder_uri = pin_encoder(data_uri, batch_id, request, landing)
    print(f"encoder: {encoder_uri}", flush=True)
    encoder = load_encoder(encoder_uri, encoders=batch.encoders, store=store)
    progress = Progress(
        store,
        batch.results / "progress.json",
        records=_records(landing),
        capacity=ray.cluster_resources,
    )
    with progress:
        parts = pipeline(batch, request, landing, encoder_uri, stall_seconds=stall_seconds)
        commits, peaks = _run(finished_parts(parts), store, batch, progress)
        counts = publish(store, batch, request, landing, _in_order(landing, commits), encoder)
    return {
        "status": "written",
        **counts,
        "parts": progress.parts,
        "parts_resumed": progress.parts_resumed,
        "reads_per_second": progress.report()["rate"],
        "busy_seconds": {stage: round(progress.busy_seconds[stage], 2) for stage in STAGES},
        "peak_bytes": dict(peaks),
    }


def _run(
    rows: Iterable[dict[str, Any]], store: ObjectStore, batch: Batch, progress: Progress
) -> tuple[dict[str, Commit], Counter[str]]:
    """Drive the pipeline to its end: the commit of every part by name, and the peak memory of both stages."""
    commits: dict[str, Commit] = {}
    resumed: list[str] = []
    peaks: Counter[str] = Counter()
    for row in rows:
        if row["commit"] is None:
            resumed.append(row["name"])
            progress.resumed(reads=row["records"])
        else:
            commit = commits[row["name"]] = Commit.from_json(json.loads(row["commit"]))
            busy = {stage: row[f"{stage}_seconds"] for stage in (*STAGES, "gpu")}
            progress.embedded(reads=row["records"], vectors=commit.vectors, busy_seconds=busy)
        for stage in ("reader", "encoder"):
            peaks[stage] = max(peaks[stage], row[f"{stage}_peak_bytes"])
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        found = pool.map(lambda name: read_commit(store, batch, name), resumed)
        commits.update(zip(resumed, found, strict=True))
    return commits, peaks


def _in_order(landing: LandingManifest, commits: dict[str, Commit]) -> list[Commit]:
    """Commits in the order of the samples in the manifest, then of the numbers of their parts."""
    rank = {sample.name: number for number, sample in enumerate(landing.samples)}

    def position(name: str) -> tuple[int, int]:
        sample, _, number = name.rpartition("-")
        return rank[sample], int(number)

    return [commits[name] for name in sorted(commits, key=position)]


def _records(landing: LandingManifest) -> int | None:
    counts = [file.records for sample in landing.samples for file in sample.files]
    return None if None in counts else sum(count for count in counts if count is not None)


def _requested(store: ObjectStore, batch: Batch) -> BatchRequest:
    try:
        return read_request(store, batch)
    except FileNotFoundError:
        raise InvalidInput(
            f"batch {batch.batch_id!r} was not requested: there is no {batch.results / 'request.json'}; "
            "run the genomics_batch DAG, which writes it"
        ) from None


def _training_cpus() -> float:
    """What training may ask for and get: a task runs on one node. Without workers, what makes some start."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return min(TRAINING_CPUS, max(nodes, default=0) or TRAINING_CPUS)


def _answer(task: ray.ObjectRef) -> Any:
    """The task's result; an error of ours comes as itself, without the traceback that Ray puts around it."""
    try:
        return ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, StrandloopError):
            raise error.cause from None
        raise


def main() -> int:
    """Command line; one message and an exit status of its kind where the batch cannot be embedded."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.embed", description="Embed a batch's reads on Ray."
    )
    parser.add_argument("--data-uri", required=True, help="s3://bucket[/prefix] of landing/ and batches/")
    parser.add_argument("--batch-id", required=True)
    parser.add_argument(
        "--stall-seconds",
        type=float,
        default=STALL_SECONDS,
        help="fail when nothing has moved for so long (default: %(default)g)",
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        summary = embed(arguments.data_uri, arguments.batch_id, stall_seconds=arguments.stall_seconds)
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if summary["status"] == "unchanged":
        print(f"batch {arguments.batch_id} is embedded already: unchanged")
    print(json.dumps({**summary, "seconds": round(time.monotonic() - started, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
