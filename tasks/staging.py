"""Bring a batch's embedding store, and its reads, from S3 to the file system that the compute nodes share.

``python -m tasks.staging pull --embeddings s3://…/embeddings --to DIR --reads s3://…/reads --reads-to DIR``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.store import MANIFEST, Shard, StoreError, StoreManifest, shard_problem
from tasks.errors import InvalidInput, StorageError, StrandloopError
from tasks.object_store import ObjectStore, ObjectUri
from tasks.results import ResultFile

PARALLEL_DOWNLOADS = 8
File = Shard | ResultFile


def pull(store: ObjectStore, embeddings: ObjectUri, directory: Path) -> dict[str, Any]:
    """Make ``directory`` a verified copy of the store below ``embeddings``; gives a summary.

    Where the same store stands there already (the same manifest, every shard of its size) nothing is done.
    Of a partial or different one the manifest goes first, so that nobody reads a mixture; shards that have
    the right SHA-256 stay, the others are fetched under temporary names; the manifest comes last.

    :raises InvalidInput: there is no finished store below ``embeddings``.
    :raises StorageError: the manifest cannot be read, or a shard does not have the SHA-256 that it records.
    """
    body = _manifest(store, embeddings)
    try:
        manifest = StoreManifest.from_json(json.loads(body))
    except (ValueError, StoreError) as error:
        raise StorageError(f"{embeddings / MANIFEST} cannot be used: {error}") from error
    fetched = _copy(store, embeddings, directory, manifest.shards, body)
    for shard in manifest.shards:
        if shard in fetched and (problem := shard_problem(directory, manifest, shard)):
            raise StorageError(f"{embeddings} was fetched, but {problem}; embed the batch again")
    return {"rows": manifest.rows, **_finish(directory, manifest.shards, fetched, body)}


def pull_reads(store: ObjectStore, reads: ObjectUri, directory: Path) -> dict[str, Any]:
    """Make ``directory`` a verified copy of the reads below ``reads``, as :func:`pull` does with vectors."""
    body = _manifest(store, reads)
    try:
        files = [ResultFile(**file) for file in json.loads(body)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{reads / MANIFEST} cannot be used: {error!r}") from error
    return _finish(directory, files, _copy(store, reads, directory, files, body), body)


def _manifest(store: ObjectStore, prefix: ObjectUri) -> bytes:
    try:
        return store.get_bytes(prefix / MANIFEST)
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{prefix} has no {MANIFEST}: the reads of this batch were not embedded to the end"
        ) from error


def _copy(
    store: ObjectStore, prefix: ObjectUri, directory: Path, files: Sequence[File], body: bytes
) -> list[File]:
    """Fetch what is not there and remove what does not belong there; gives the fetched files.

    :param body: of the manifest. The directory's own is removed first, unless all is there.
    """
    if _is_there(directory, files, body):
        return []
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST).unlink(missing_ok=True)
    _remove_strangers(directory, files)
    missing = [file for file in files if not _is_whole(directory, file)]
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        list(pool.map(lambda file: _fetch(store, prefix, directory, file), missing))
    return missing


def _finish(directory: Path, files: Sequence[File], fetched: Sequence[File], body: bytes) -> dict[str, Any]:
    """Make the copy exist by its manifest; gives the summary."""
    unchanged = _is_there(directory, files, body)
    if not unchanged:
        write_whole(directory / MANIFEST, body)
    return {
        "status": "unchanged" if unchanged else "written",
        "files": len(files),
        "bytes": sum(file.bytes for file in files),
        "fetched": len(fetched),
    }


def _is_there(directory: Path, files: Sequence[File], body: bytes) -> bool:
    """The same manifest and files of the right sizes; who reads them checks every SHA-256."""
    path = directory / MANIFEST
    if not path.is_file() or path.read_bytes() != body:
        return False
    sizes = ((directory / file.name, file.bytes) for file in files)
    return all(path.is_file() and path.stat().st_size == size for path, size in sizes)


def _is_whole(directory: Path, file: File) -> bool:
    path = directory / file.name
    return path.is_file() and path.stat().st_size == file.bytes and sha256_of(path) == file.sha256


def _remove_strangers(directory: Path, files: Sequence[File]) -> None:
    """Remove files of a former batch, and what a pull that was killed left under temporary names."""
    wanted = {file.name for file in files}
    for path in (*directory.glob("*.parquet"), *directory.glob(".*.parquet.part")):
        if path.name not in wanted:
            path.unlink()


def _fetch(store: ObjectStore, prefix: ObjectUri, directory: Path, file: File) -> None:
    temporary = directory / f".{file.name}.part"
    try:
        sha256 = store.download(prefix / file.name, temporary)
    except FileNotFoundError as error:
        raise StorageError(f"{prefix / file.name} is missing, though the manifest names it") from error
    if sha256 != file.sha256:
        temporary.unlink()
        raise StorageError(
            f"{prefix / file.name} does not have the SHA-256 that the manifest records: it was changed or "
            "damaged after it was written; embed the batch again"
        )
    temporary.replace(directory / file.name)


def main(arguments: list[str] | None = None) -> int:
    """``pull``: prints a summary as one JSON line; the exit status is 1 where something cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tasks.staging", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("pull", help="copy an embedding store from S3, verified")
    command.add_argument("--embeddings", type=ObjectUri.parse, required=True, help="s3://… of the store")
    command.add_argument("--to", type=Path, required=True, help="directory that becomes the copy")
    command.add_argument("--reads", type=ObjectUri.parse, help="s3://… of the reads that it embeds")
    command.add_argument("--reads-to", type=Path, help="directory that becomes their copy")
    options = parser.parse_args(arguments)
    if (options.reads is None) != (options.reads_to is None):
        parser.error("--reads and --reads-to go together")
    try:
        summary = pull(ObjectStore(), options.embeddings, options.to)
        if options.reads:
            summary["reads"] = pull_reads(ObjectStore(), options.reads, options.reads_to)
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if summary["status"] == "unchanged":
        print(f"unchanged: {options.to} already holds this embedding store")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
