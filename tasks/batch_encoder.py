"""The encoder of a batch, pinned before the first read is embedded; a first version is trained from its reads."""

from __future__ import annotations

import pyarrow as pa

from tasks.batches import Batch, BatchRequest
from tasks.landing import LandingManifest
from tasks.learning.first_version import ensure_encoder
from tasks.object_store import ObjectStore
from tasks.parts import READS_SCHEMA, Part, parts_of
from tasks.publication import check_usable, publish_quarantine
from tasks.reads.accounting import QualityAccounting
from tasks.reads.block import QuarantinedRecord

TRAINING_READS = 60_000


def pin_encoder(data_uri: str, batch_id: str, request: BatchRequest, landing: LandingManifest) -> str:
    """URI of the batch's encoder; the first version is trained from its own reads, on a worker of the cluster.

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
            for part in parts_of(store, batch, request, sample, skip=set()):
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
