"""Bring a batch's embedding store from S3 to the file system that the compute nodes share.

``python -m tasks.staging pull --embeddings s3://…/embeddings --to DIR``
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpc_jobs.checked_file import write_whole
from hpc_jobs.store import MANIFEST, Shard, StoreError, StoreManifest, shard_problem
from tasks.errors import InvalidInput, StorageError, StrandloopError
from tasks.object_store import ObjectStore, ObjectUri

PARALLEL_DOWNLOADS = 8


def pull(store: ObjectStore, embeddings: ObjectUri, directory: Path) -> dict[str, Any]:
    """Make ``directory`` a verified copy of the store below ``embeddings``; gives a summary.

    Where the same store stands there already (the same manifest, every shard of its size) nothing is done.
    Of a partial or different one the manifest goes first, so that nobody reads a mixture; shards that have
    the right SHA-256 stay, the others are fetched under temporary names; the manifest comes last.

    :raises InvalidInput: there is no finished store below ``embeddings``.
    :raises StorageError: the manifest cannot be read, or a shard does not have the SHA-256 that it records.
    """
    try:
        body = store.get_bytes(embeddings / MANIFEST)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{embeddings} has no {MANIFEST}: the reads of this batch were not embedded to the end"
        ) from error
    try:
        manifest = StoreManifest.from_json(json.loads(body))
    except (ValueError, StoreError) as error:
        raise StorageError(f"{embeddings / MANIFEST} cannot be used: {error}") from error

    summary = {
        "rows": manifest.rows,
        "shards": len(manifest.shards),
        "bytes": sum(shard.bytes for shard in manifest.shards),
    }
    if _is_there(directory, manifest, body):
        return {"status": "unchanged", **summary, "fetched": 0}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    _remove_strangers(directory, manifest)
    missing = [shard for shard in manifest.shards if shard_problem(directory, manifest, shard)]
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        list(pool.map(lambda shard: _fetch(store, embeddings, directory, shard), missing))
    for shard in missing:
        if problem := shard_problem(directory, manifest, shard):
            raise StorageError(f"{embeddings} was fetched, but {problem}; embed the batch again")
    write_whole(directory / MANIFEST, body)
    return {"status": "written", **summary, "fetched": len(missing)}


def _is_there(directory: Path, manifest: StoreManifest, body: bytes) -> bool:
    """The same manifest and files of the right sizes; the kernel checks every SHA-256 when it reads them."""
    path = directory / MANIFEST
    if not path.is_file() or path.read_bytes() != body:
        return False
    files = ((directory / shard.name, shard.bytes) for shard in manifest.shards)
    return all(file.is_file() and file.stat().st_size == size for file, size in files)


def _remove_strangers(directory: Path, manifest: StoreManifest) -> None:
    """Remove shards of a former store, and what a pull that was killed left under temporary names."""
    wanted = {shard.name for shard in manifest.shards}
    for path in (*directory.glob("*.parquet"), *directory.glob(".*.parquet.part")):
        if path.name not in wanted:
            path.unlink()


def _fetch(store: ObjectStore, embeddings: ObjectUri, directory: Path, shard: Shard) -> None:
    temporary = directory / f".{shard.name}.part"
    try:
        sha256 = store.download(embeddings / shard.name, temporary)
    except FileNotFoundError as error:
        raise StorageError(f"{embeddings / shard.name} is missing, though the manifest names it") from error
    if sha256 != shard.sha256:
        temporary.unlink()
        raise StorageError(
            f"{embeddings / shard.name} does not have the SHA-256 that the manifest records: it was changed or "
            "damaged after it was written; embed the batch again"
        )
    temporary.replace(directory / shard.name)


def main(arguments: list[str] | None = None) -> int:
    """``pull``: prints the summary as one JSON line; the exit status is 1 where the store cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tasks.staging", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pull", help="copy an embedding store from S3, verified")
    command.add_argument("--embeddings", type=ObjectUri.parse, required=True, help="s3://… of the store")
    command.add_argument("--to", type=Path, required=True, help="directory that becomes the copy")
    options = parser.parse_args(arguments)
    try:
        summary = pull(ObjectStore(), options.embeddings, options.to)
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if summary["status"] == "unchanged":
        print(f"unchanged: {options.to} already holds this embedding store")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
