"""Phase 1 as a Ray job: ``python -m tasks.embed --data-uri s3://strandloop --batch-id 2026-11-20``.

Readers parse and filter, one file or pair each; encoder actors turn parts into vectors and commit them (see
:mod:`tasks.shards`); the driver counts, checks that every record is accounted for, and publishes: quality/,
quarantine/, reads/, and the manifest of embeddings/ last. A restart skips what is committed.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from hpc_jobs.store import StoreManifest
from tasks import results
from tasks.batches import Batch, BatchRequest, read_request
from tasks.encoders.protocol import load_encoder
from tasks.errors import InvalidReads, StrandloopError
from tasks.landing import LandedSample, LandingManifest, read_manifest
from tasks.learning.first_version import ensure_encoder
from tasks.object_store import ObjectStore
from tasks.reads.accounting import QualityAccounting
from tasks.shards import (
    Commit,
    Part,
    commit_part,
    committed,
    parts_of,
    quality_filter,
    read_commit,
)

READER_CPUS = 0.9
"""Not 1: stages of equal resources are fused into one, and parsing would wait for encoding."""
PART_BYTES = 1 << 20
"""Ray Data hands a block on once it is this large; a part of short reads is larger, so parts do not pile up."""
TRAINING_READS = 60_000
PROGRESS_SECONDS = 5


def embed(data_uri: str, batch_id: str) -> dict[str, Any]:
    """Embed a batch on the Ray cluster that is connected; gives the summary that the job prints.

    :raises InvalidReads: a file is damaged, too many records cannot be parsed, or no read is kept.
    """
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    manifest_uri = batch.results / "embeddings" / "manifest.json"
    if store.head(manifest_uri):
        return {"status": "unchanged", "rows": store.get_json(manifest_uri)["rows"]}
    request = read_request(store, batch)
    landing, _ = read_manifest(store, batch)
    cpus = ray.cluster_resources()["CPU"]
    pin = ray.remote(num_cpus=min(2, cpus))(pin_encoder)
    encoder_uri = ray.get(pin.remote(data_uri, batch_id, request, landing))
    print(f"encoder: {encoder_uri}", flush=True)
    names = _run(pipeline(batch, request, landing, encoder_uri, actors=max(1, int(cpus) - 2)))
    commits = [read_commit(store, batch, name) for name in _in_order(landing, names)]
    return publish(store, batch, request, landing, commits, encoder_uri)


def pin_encoder(data_uri: str, batch_id: str, request: BatchRequest, landing: LandingManifest) -> str:
    """The batch's encoder; the first version is trained from its own reads, on a worker of the cluster."""
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    share = max(1, TRAINING_READS // len(landing.samples))

    def sample_reads() -> pa.Table:
        tables = []
        for sample in landing.samples:
            kept = 0
            for part in parts_of(store, batch.landing, sample, quality_filter(request), skip=set()):
                assert isinstance(part, Part)
                tables.append(part.reads.slice(0, share - kept))
                kept += tables[-1].num_rows
                if kept >= share:
                    break
        return pa.concat_tables(tables).select(["read_id", "sequence"])

    return ensure_encoder(store, batch, request.encoder, sample_reads)


def pipeline(
    batch: Batch, request: BatchRequest, landing: LandingManifest, encoder_uri: str, *, actors: int
) -> Dataset:
    """Samples -> parts -> commit records, streaming; one row of the result for each part."""
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
    """Reader: one sample -> its parts, each one row with the name and, unless committed, the part."""

    def __init__(self, batch: Batch, request: BatchRequest) -> None:
        self.batch = batch
        self.request = request

    def __call__(self, rows: pa.Table) -> Iterator[pa.Table]:
        """Give the parts as they are parsed."""
        store = ObjectStore()
        skip = committed(store, self.batch)
        for packed in rows["sample"].to_pylist():
            sample: LandedSample = pickle.loads(packed)
            for part in parts_of(store, self.batch.landing, sample, quality_filter(self.request), skip=skip):
                name, body = (part, None) if isinstance(part, str) else (part.name, pickle.dumps(part))
                yield pa.table({"name": [name], "part": pa.array([body], pa.large_binary())})


class EncodeAndCommit:
    """Encoder actor: the encoder is loaded once, then every part is encoded and committed."""

    def __init__(self, batch: Batch, encoder_uri: str) -> None:
        import torch

        torch.set_num_threads(1)  # one CPU is ours, and the bits of a vector must not depend on it
        self.batch = batch
        self.store = ObjectStore()
        self.encoder = load_encoder(encoder_uri, encoders=batch.encoders, store=self.store)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Commit the parts; gives their names and how many reads they keep."""
        kept = []
        for body in rows["part"].to_pylist():
            kept.append(
                0
                if body is None
                else commit_part(self.store, self.batch, pickle.loads(body), self.encoder).accounting.kept
            )
        return pa.table({"name": rows["name"], "kept": pa.array(kept, pa.int64())})


def _run(parts: Dataset) -> set[str]:
    """Drive the pipeline to its end, with a line of progress now and then; gives the names of all parts."""
    names: set[str] = set()
    reads, started = 0, time.monotonic()
    reported = started
    for row in parts.iter_rows():
        names.add(row["name"])
        reads += row["kept"]
        if time.monotonic() - reported >= PROGRESS_SECONDS:
            reported = time.monotonic()
            rate = reads / (reported - started)
            print(f"{reads:,} reads embedded, {len(names):,} parts, {rate:,.0f} reads/s", flush=True)
    return names


def _in_order(landing: LandingManifest, names: set[str]) -> list[str]:
    """Part names in the order of the samples in the manifest, then of their numbers."""
    rank = {sample.name: number for number, sample in enumerate(landing.samples)}

    def position(name: str) -> tuple[int, int]:
        sample, _, number = name.rpartition("-")
        return rank[sample], int(number)

    return sorted(names, key=position)


def publish(
    store: ObjectStore,
    batch: Batch,
    request: BatchRequest,
    landing: LandingManifest,
    commits: list[Commit],
    encoder_uri: str,
) -> dict[str, Any]:
    """Check the account of all records and publish the batch's results of phase 1, the store's manifest last."""
    samples = {sample.name: QualityAccounting() for sample in landing.samples}
    for commit in commits:
        samples[commit.name.rpartition("-")[0]] += commit.accounting
    total = sum(samples.values(), QualityAccounting())
    total.check_closed()
    quarantined = [asdict(record) for commit in commits for record in commit.quarantined]
    lines = "".join(json.dumps(record, sort_keys=True) + "\n" for record in quarantined)
    results.publish(
        store, batch.results / "quarantine", {"records.jsonl": lines.encode()}, {"records": len(quarantined)}
    )
    _check_usable(batch, request, total)

    quality = {
        "total": total.to_json(),
        "samples": {name: accounting.to_json() for name, accounting in samples.items()},
    }
    body = json.dumps(quality, sort_keys=True).encode() + b"\n"
    counts = {"records": total.records, "kept": total.kept, "quarantined": total.quarantined}
    results.publish(store, batch.results / "quality", {"quality.json": body}, counts)
    reads = [commit.reads for commit in commits if commit.reads]
    results.seal(store, batch.results / "reads", reads, {"reads": total.kept})
    encoder = load_encoder(encoder_uri, encoders=batch.encoders, store=store)
    shards = tuple(commit.shard for commit in commits if commit.shard)
    manifest = StoreManifest(
        rows=sum(shard.rows for shard in shards),
        dim=encoder.dim,
        dtype="float32",
        normalised=True,
        encoder_uri=encoder.uri,
        encoder_revision=encoder.revision,
        shards=shards,
    )
    store.put_json(batch.results / "embeddings" / "manifest.json", manifest.to_json())
    bytes_in = sum(file.bytes for sample in landing.samples for file in sample.files)
    bytes_out = sum(shard.bytes for shard in shards)
    return {
        "status": "written",
        **counts,
        "rows": manifest.rows,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
    }


def _check_usable(batch: Batch, request: BatchRequest, total: QualityAccounting) -> None:
    if total.quarantined > request.max_quarantine_fraction * total.records:
        raise InvalidReads(
            f"{total.quarantined:,} of {total.records:,} records of batch {batch.batch_id!r} cannot be parsed, "
            f"more than the {request.max_quarantine_fraction:.2%} that max_quarantine_fraction allows. They are "
            f"listed with their reasons in {batch.results / 'quarantine' / 'records.jsonl'}; land the batch anew, "
            "or run it with a larger fraction"
        )
    if not total.kept:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(total.rejected.items()))
        raise InvalidReads(
            f"batch {batch.batch_id!r} has no read left after the quality filters: {total.records:,} records, "
            f"rejected {reasons or 'none'}, {total.quarantined:,} cannot be parsed"
        )


def main() -> int:
    """Command line; the exit status is 1 where the batch cannot be embedded, with one message that says why."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.embed", description="Embed a batch's reads on Ray."
    )
    parser.add_argument("--data-uri", required=True, help="s3://bucket[/prefix] of landing/ and batches/")
    parser.add_argument("--batch-id", required=True)
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        ray.init(log_to_driver=False)
        summary = embed(arguments.data_uri, arguments.batch_id)
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return 1
    if summary["status"] == "unchanged":
        print(f"batch {arguments.batch_id} is embedded already: unchanged")
    print(json.dumps({**summary, "seconds": round(time.monotonic() - started, 1)}))
    return 0


def _known(error: BaseException | None) -> StrandloopError | None:
    """The error of ours that Ray's wrapping hides, if there is one."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, StrandloopError):
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    sys.exit(main())
