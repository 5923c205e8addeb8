"""The verified overlaps of a batch: the alignments of similar reads that hold, under the names of the reads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.align_pairs import overlaps
from hpc_jobs.align_pairs.overlaps import OverlapManifest, OverlapsError
from hpc_jobs.checked_file import sha256_of
from tasks import results
from tasks.batches import Batch
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore

PREFIX = "overlaps"
ROWS_PER_FILE = 2_000_000
SCHEMA = pa.schema(
    [
        pa.field("read_id", pa.string(), False),
        pa.field("other_id", pa.string(), False),
        *(field for field in overlaps.SCHEMA if field.name not in ("first", "second")),
    ]
)
"""A row for each pair that overlaps; the other columns as in :mod:`hpc_jobs.align_pairs.overlaps`."""


def verify_local(directory: Path, *, store_sha256: str, knn_directory: Path) -> OverlapManifest:
    """The manifest of the alignment in ``directory``; raises InvalidInput where it is not of this k-NN result."""
    try:
        found = overlaps.verify(directory)
    except OverlapsError as error:
        raise InvalidInput(str(error)) from error
    knn_sha256 = sha256_of(knn_directory / "manifest.json")
    if (found.request.store_sha256, found.request.knn_sha256) != (store_sha256, knn_sha256):
        raise InvalidInput(
            f"{directory} holds the overlaps of another k-NN result than {knn_directory}; align again"
        )
    return found


def details(found: OverlapManifest) -> dict[str, Any]:
    """What the published result says of itself: ``share`` is that of the aligned pairs that overlap, or None."""
    return {
        "pairs": found.pairs,
        "overlaps": found.overlaps,
        "share": round(found.overlaps / found.pairs, 6) if found.pairs else None,
        "pairs_are": "mutual neighbours" if found.request.mutual else "all neighbours",
        "minimum_overlap": found.request.minimum_overlap,
        "minimum_identity": found.request.minimum_identity,
        "store_sha256": found.request.store_sha256,
    }


def publish(
    objects: ObjectStore, batch: Batch, directory: Path, read_ids: pa.Array, found: OverlapManifest
) -> results.ResultManifest:
    """Publish ``overlaps/`` of the batch.

    :param read_ids: of every row of the embedding store.
    """
    table = overlaps.read(directory)
    files = {}
    for number, start in enumerate(range(0, max(len(table), 1), ROWS_PER_FILE)):
        part = table.slice(start, ROWS_PER_FILE).combine_chunks()
        names = [read_ids.take(part[name].combine_chunks()) for name in ("first", "second")]
        columns = [*names, *(part[name] for name in SCHEMA.names[2:])]
        target = io.BytesIO()
        pq.write_table(pa.table(columns, schema=SCHEMA), target, compression="zstd")
        files[f"overlaps-{number:05d}.parquet"] = target.getvalue()
    return results.publish(objects, batch.results / PREFIX, files, details(found))
