"""Whether everything that a batch's manifest names is there and is what it says."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tasks.batches import Batch
from tasks.errors import InvalidBatch
from tasks.landing.manifest import LandedFile, examine, fetch_manifest
from tasks.object_store import STREAM_CHUNK_BYTES, ObjectStore

_OBJECTS_AT_ONCE = 4


def validate_batch(data_uri: str, batch_id: str) -> dict[str, Any]:
    """Check the manifest, and every object that it names by existence, size and SHA-256.

    Objects are streamed, not kept; nothing is written.

    :return: ``status`` (always ``unchanged``), ``samples``, ``files``, ``records`` (None where the manifest does
        not count them all), ``bytes`` and ``landing_sha256``, the checksum of the manifest.
    :raises InvalidBatch: with all problems of the batch at once.
    """
    store, batch = ObjectStore(), Batch(data_uri, batch_id)
    value, landing_sha256 = fetch_manifest(store, batch)
    samples, problems = examine(value, batch_id=batch_id)
    files = [file for sample in samples for file in sample.files]
    with ThreadPoolExecutor(_OBJECTS_AT_ONCE) as pool:
        problems += [
            problem for problem in pool.map(lambda file: _problem(store, batch, file), files) if problem
        ]
    if problems:
        raise InvalidBatch(batch_id, problems)
    counts = [file.records for file in files]
    summary = {
        "status": "unchanged",
        "batch_id": batch_id,
        "samples": len(samples),
        "files": len(files),
        "records": None if None in counts else sum(count or 0 for count in counts),
        "bytes": sum(file.bytes for file in files),
        "landing_sha256": landing_sha256,
    }
    print(
        f"batch {batch_id} is as its manifest says: {summary['samples']} sample(s), {summary['files']} file(s), "
        f"{summary['bytes']:,} bytes"
    )
    return summary


def _problem(store: ObjectStore, batch: Batch, file: LandedFile) -> str | None:
    """What is wrong with one object, or None."""
    uri = batch.landing / file.key
    info = store.head(uri)
    if info is None:
        return f"{uri} is named in the manifest but does not exist"
    if info.size_bytes != file.bytes:
        return f"{uri} has {info.size_bytes:,} bytes, but the manifest says {file.bytes:,}"
    digest = hashlib.sha256()
    with store.open(uri) as stream:
        while chunk := stream.read(STREAM_CHUNK_BYTES):
            digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        return f"{uri} has the SHA-256 {digest.hexdigest()}, but the manifest says {file.sha256}"
    return None
