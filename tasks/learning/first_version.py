"""The encoder of a batch: the one that is pinned, else the promoted one, else one trained from its own reads."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from tasks.batches import Batch
from tasks.object_store import ObjectStore


def ensure_encoder(
    store: ObjectStore, batch: Batch, requested_uri: str, sample_reads: Callable[[], pa.Table]
) -> str:
    """The resolved URI of the batch's encoder, pinned in ``batches/<id>/encoder.json``.

    Where ``registry://NAME`` has no version yet, the first one is trained from ``sample_reads()``, registered
    and promoted; of several runs that do so at once, one wins and all use its version.

    :param sample_reads: gives reads of the batch to learn from, columns ``read_id`` and ``sequence`` (string);
        called only where a first version has to be trained. 20,000 to 200,000 reads are enough.
    :raises InvalidEncoder: the URI cannot be understood, names nothing that exists, or cannot be trained.
    """
    raise NotImplementedError
