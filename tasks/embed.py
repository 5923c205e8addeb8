"""Phase 1 as a Ray job: ``python -m tasks.embed --data-uri s3://strandloop --batch-id 2026-11-20``.

Readers parse and filter, one file or pair each; encoder actors turn parts into vectors and commit them (see
:mod:`tasks.shards`); the driver checks that every record is accounted for and publishes the results (see
:mod:`tasks.publication`). A restart skips what is committed.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayTaskError

from tasks.batches import Batch, BatchRequest, read_request
from tasks.encoders.protocol import load_encoder
from tasks.errors import InvalidInput, StrandloopError
from tasks.landing import LandedSample, LandingManifest, read_manifest
from tasks.learning.first_version import ensure_encoder
from tasks.object_store import ObjectStore
from tasks.progress import Progress
from tasks.publication import check_usable, publish, publish_quarantine
from tasks.reads.accounting import QualityAccounting
from tasks.reads.block import QuarantinedRecord
from tasks.shards import READS_SCHEMA, Part, commit_part, committed, parts_of, quality_filter, read_commit

READER_CPUS = 0.9
"""Not 1: stages of equal resources are fused into one, and parsing would wait for encoding."""
PART_BYTES = 1 << 20
"""Ray Data hands a block on once it is this large; a part of short reads is larger, so parts do not pile up."""
TRAINING_READS = 60_000
TRAINING_CPUS = 2


def embed(data_uri: str, batch_id: str) -> dict[str, Any]:
    """Embed a batch on the Ray cluster of this job, or on a local one; gives the summary that the job prints.

    :raises InvalidReads: a file is damaged, too many records cannot be parsed, or no read is kept.
    :raises InvalidInput: the batch was not requested, or the cluster is too small.
    """
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    manifest_uri = batch.results / "embeddings" / "manifest.json"
    if store.head(manifest_uri):
        return {"status": "unchanged", "rows": store.get_json(manifest_uri)["rows"]}
    request, (landing, _) = _requested(store, batch), read_manifest(store, batch)
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    print(f"encoder asked for: {request.encoder}", flush=True)
    pin = ray.remote(num_cpus=_training_cpus())(pin_encoder)
    encoder_uri = _answer(pin.remote(data_uri, batch_id, request, landing))
    print(f"encoder: {encoder_uri}", flush=True)
    encoder = load_encoder(encoder_uri, encoders=batch.encoders, store=store)
    actors = max(1, int(ray.cluster_resources()["CPU"]) - 2)  # one CPU reads, one stays free
    names, progress = _run(pipeline(batch, request, landing, encoder_uri, actors=actors))
    commits = [read_commit(store, batch, name) for name in _in_order(landing, names)]
    counts = publish(store, batch, request, landing, commits, encoder)
    return {"status": "written", **counts, "parts": progress.parts, "parts_resumed": progress.parts_resumed}


def pin_encoder(data_uri: str, batch_id: str, request: BatchRequest, landing: LandingManifest) -> str:
    """The batch's encoder; the first version is trained from its own reads, on a worker of the cluster.

    :raises InvalidReads: the batch is so small that the sample is all of it, and is not usable: nothing is
        trained on it then.
    """
    store, batch = ObjectStore(), Batch(data_uri, batch_id)

    def sample_reads() -> pa.Table:
        share = max(1, TRAINING_READS // len(landing.samples))
        tables, total, whole = [READS_SCHEMA.empty_table()], QualityAccounting(), True
        quarantined: list[QuarantinedRecord] = []
        for sample in landing.samples:
            kept = 0
            for part in parts_of(store, batch.landing, sample, quality_filter(request), skip=set()):
                assert isinstance(part, Part)  # nothing is skipped
                total += part.accounting
                quarantined += part.quarantined
                tables.append(part.reads.slice(0, share - kept))
                kept += tables[-1].num_rows
                if kept >= share:
                    whole = False
                    break
        if whole:
            publish_quarantine(store, batch, quarantined)
            check_usable(batch, request, total)
        return pa.concat_tables(tables).select(["read_id", "sequence"])

    return ensure_encoder(store, batch, request.encoder, sample_reads)


def pipeline(
    batch: Batch, request: BatchRequest, landing: LandingManifest, encoder_uri: str, *, actors: int
) -> Dataset:
    """Samples -> parts -> commits, streaming; rows (name, kept, failure), one for each part or failure.

    ``kept`` is null for a part that an earlier run committed; ``failure`` is a pickled StrandloopError.
    """
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = PART_BYTES
    samples = ray.data.from_items(
        [{"sample": pickle.dumps(sample)} for sample in landing.samples],
        override_num_blocks=len(landing.samples),
    )
    parts = samples.map_batches(
        ReadParts(batch, request), batch_size=1, batch_format="pyarrow", num_cpus=READER_CPUS
    )
    return parts.map_batches(
        EncodeAndCommit,
        fn_constructor_args=(batch, encoder_uri),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        compute=ActorPoolStrategy(min_size=1, max_size=actors, max_tasks_in_flight_per_actor=2),
    )


class ReadParts:
    """Reader: one sample -> its parts, each one row with the name and, unless committed, the part.

    What is wrong with the reads travels on as a row: raised here, it would reach people as a Ray traceback.
    """

    def __init__(self, batch: Batch, request: BatchRequest) -> None:
        self.batch = batch
        self.request = request

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Give the parts as they are parsed."""
        for packed in rows["sample"].to_pylist():
            try:
                yield from self._parts(pickle.loads(packed))
            except StrandloopError as error:
                yield _part_row("", failure=error)

    def _parts(self, sample: LandedSample) -> Iterator[pa.Table]:
        store = ObjectStore()
        skip = committed(store, self.batch)
        for part in parts_of(store, self.batch.landing, sample, quality_filter(self.request), skip=skip):
            yield _part_row(part) if isinstance(part, str) else _part_row(part.name, part)


class EncodeAndCommit:
    """Encoder actor: the encoder is loaded once, then every part is encoded and committed."""

    def __init__(self, batch: Batch, encoder_uri: str) -> None:
        import torch

        torch.set_num_threads(1)  # one CPU is ours, and the bits of a vector must not depend on it
        self.batch = batch
        self.store = ObjectStore()
        self.encoder = load_encoder(encoder_uri, encoders=batch.encoders, store=self.store)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Commit the parts; see :func:`pipeline` for the rows."""
        kept: list[int | None] = []
        failures: list[bytes | None] = []
        for body, failure in zip(rows["part"].to_pylist(), rows["failure"].to_pylist(), strict=True):
            try:
                kept.append(None if body is None else self._commit(pickle.loads(body)))
            except StrandloopError as error:
                kept.append(None)
                failure = pickle.dumps(error)
            failures.append(failure)
        columns = {"kept": pa.array(kept, pa.int64()), "failure": pa.array(failures, pa.binary())}
        return pa.table({"name": rows["name"], **columns})

    def _commit(self, part: Part) -> int:
        return commit_part(self.store, self.batch, part, self.encoder).accounting.kept


def _part_row(name: str, part: Part | None = None, failure: StrandloopError | None = None) -> pa.Table:
    body, error = (value and pickle.dumps(value) for value in (part, failure))
    return pa.table(
        {
            "name": [name],
            "part": pa.array([body], pa.large_binary()),
            "failure": pa.array([error], pa.binary()),
        }
    )


def _run(parts: Dataset) -> tuple[set[str], Progress]:
    """Drive the pipeline to its end; gives the names of all parts, and raises the first failure."""
    names: set[str] = set()
    with Progress() as progress:
        for row in parts.iter_rows():
            if row["failure"] is not None:
                raise pickle.loads(row["failure"])
            names.add(row["name"])
            if row["kept"] is None:
                progress.resumed()
            else:
                progress.embedded(row["kept"])
    return names, progress


def _in_order(landing: LandingManifest, names: set[str]) -> list[str]:
    """Part names in the order of the samples in the manifest, then of their numbers."""
    rank = {sample.name: number for number, sample in enumerate(landing.samples)}

    def position(name: str) -> tuple[int, int]:
        sample, _, number = name.rpartition("-")
        return rank[sample], int(number)

    return sorted(names, key=position)


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
    if 0 < sum(nodes) < 2:
        raise InvalidInput(
            f"the Ray cluster has {sum(nodes):g} CPU; a reader and an encoder need 2 at the same time"
        )
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
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        summary = embed(arguments.data_uri, arguments.batch_id)
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    if summary["status"] == "unchanged":
        print(f"batch {arguments.batch_id} is embedded already: unchanged")
    print(json.dumps({**summary, "seconds": round(time.monotonic() - started, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
