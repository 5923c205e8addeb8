"""What phase 1 publishes of a batch, once all its parts are committed: the embedding store's manifest last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from hpc_jobs.store import StoreManifest
from tasks import results
from tasks.batches import Batch, BatchRequest
from tasks.encoders.protocol import Encoder
from tasks.errors import InvalidReads
from tasks.landing import LandingManifest
from tasks.object_store import ObjectStore
from tasks.reads.accounting import QualityAccounting, UnbalancedAccounting
from tasks.reads.block import QuarantinedRecord
from tasks.shards import Commit


def publish(
    store: ObjectStore,
    batch: Batch,
    request: BatchRequest,
    landing: LandingManifest,
    commits: Sequence[Commit],
    encoder: Encoder,
) -> dict[str, Any]:
    """Check that every record is accounted for; publish quarantine/, quality/, reads/ and embeddings/.

    :param commits: one for each part of the batch, in the order of the samples and their parts.
    :returns: the counts that the job prints: reads (records, kept, quarantined), vectors (rows), and bytes in (as
        landed) and out (shards and reads).
    :raises InvalidReads: see :func:`check_usable`; quarantine/ is published all the same.
    :raises UnbalancedAccounting: records were lost or counted twice.
    """
    samples = {sample.name: QualityAccounting() for sample in landing.samples}
    for commit in commits:
        samples[commit.name.rpartition("-")[0]] += commit.accounting
    total = sum(samples.values(), QualityAccounting())
    _check_complete(landing, samples)
    total.check_closed()
    quarantined = [record for commit in commits for record in commit.quarantined]
    publish_quarantine(store, batch, quarantined)
    check_usable(batch, request, total)

    quality = {
        "total": total.to_json(),
        "samples": {name: accounting.to_json() for name, accounting in samples.items()},
    }
    counts = {"records": total.records, "kept": total.kept, "quarantined": total.quarantined}
    results.publish(
        store,
        batch.results / "quality",
        {"quality.json": json.dumps(quality, sort_keys=True).encode() + b"\n"},
        {**counts, "encoder": encoder.uri},
    )
    rows = sum(commit.vectors for commit in commits)
    reads = [commit.reads for commit in commits if commit.reads]
    results.seal(store, batch.results / "reads", reads, {"reads": total.kept, "vectors": rows})
    shards = tuple(commit.shard for commit in commits if commit.shard)
    manifest = StoreManifest(
        rows=rows,
        dim=encoder.dim,
        dtype=request.vector_dtype,
        normalised=True,  # encode_part has looked at every vector
        encoder_uri=encoder.uri,
        encoder_revision=encoder.revision,
        shards=shards,
    )
    store.put_json(batch.results / "embeddings" / "manifest.json", manifest.to_json())
    return {
        **counts,
        "rows": manifest.rows,
        "bytes_in": sum(file.bytes for sample in landing.samples for file in sample.files),
        "bytes_out": sum(shard.bytes for shard in shards) + sum(file.bytes for file in reads),
    }


def publish_quarantine(store: ObjectStore, batch: Batch, records: Iterable[QuarantinedRecord]) -> None:
    """Publish quarantine/: one JSON line for each record that cannot be read."""
    lines = [json.dumps(asdict(record), sort_keys=True) + "\n" for record in records]
    body = "".join(lines).encode()
    results.publish(store, batch.results / "quarantine", {"records.jsonl": body}, {"records": len(lines)})


def check_usable(batch: Batch, request: BatchRequest, total: QualityAccounting) -> None:
    """Raise InvalidReads where too many of the batch's records cannot be parsed, or no read is kept."""
    if total.quarantined > request.max_quarantine_fraction * total.records:
        raise InvalidReads(
            f"{total.quarantined:,} of {total.records:,} records of batch {batch.batch_id!r} cannot be parsed, "
            f"more than the {request.max_quarantine_fraction:.2%} that max_quarantine_fraction allows. They are "
            f"listed with their reasons in {batch.results / 'quarantine' / 'records.jsonl'}; land the batch anew, "
            "or run it with a larger fraction"
        )
    if not total.kept:
        reasons = ", ".join(
            f"{count:,} {reason}" for reason, count in sorted(total.rejected.items()) if count
        )
        raise InvalidReads(
            f"batch {batch.batch_id!r} has no read left after the quality filters: {total.records:,} records, "
            f"rejected {reasons or 'none'}, {total.quarantined:,} cannot be parsed"
        )


def _check_complete(landing: LandingManifest, samples: dict[str, QualityAccounting]) -> None:
    """A part that went missing on the way is seen here: the readers saw every record of their files."""
    for sample in landing.samples:
        counts = [file.records for file in sample.files]
        landed = sum(count for count in counts if count is not None)
        if None not in counts and samples[sample.name].records != landed:
            raise UnbalancedAccounting(
                f"sample {sample.name!r} has {landed:,} records, but its committed parts account for "
                f"{samples[sample.name].records:,}. Nothing of this may be published; report it with the records "
                "below embeddings/parts/"
            )
