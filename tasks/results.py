"""A result prefix: files in S3, then the ``manifest.json`` that names them and makes them exist."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.errors import StorageError
from tasks.object_store import ObjectStore, ObjectUri


@dataclass(frozen=True)
class ResultFile:
    """One file of a result prefix."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ResultManifest:
    """What a result prefix holds; ``details`` are facts about it that readers want without opening files."""

    files: list[ResultFile]
    details: dict[str, Any]


def publish(
    store: ObjectStore, prefix: ObjectUri, files: Mapping[str, bytes], details: Mapping[str, Any]
) -> ResultManifest:
    """Write ``files`` (name -> body), then the manifest: a reader sees all of it or nothing."""
    entries = []
    for name, body in files.items():
        store.put_bytes(prefix / name, body)
        entries.append(ResultFile(name, len(body), hashlib.sha256(body).hexdigest()))
    return seal(store, prefix, entries, details)


def seal(
    store: ObjectStore, prefix: ObjectUri, files: Sequence[ResultFile], details: Mapping[str, Any]
) -> ResultManifest:
    """Write the manifest of files that stand below ``prefix`` already, and so make the result exist."""
    manifest = ResultManifest(list(files), dict(details))
    store.put_json(prefix / "manifest.json", asdict(manifest))
    return manifest


def find(store: ObjectStore, prefix: ObjectUri) -> ResultManifest | None:
    """The prefix's manifest, or None where the result does not exist (yet)."""
    try:
        fields = store.get_json(prefix / "manifest.json")
    except FileNotFoundError:
        return None
    return ResultManifest([ResultFile(**entry) for entry in fields["files"]], fields["details"])


def fetch(store: ObjectStore, prefix: ObjectUri, file: ResultFile) -> bytes:
    """One file's bytes, checked against the manifest; raises StorageError where they differ."""
    body = store.get_bytes(prefix / file.name)
    if hashlib.sha256(body).hexdigest() != file.sha256:
        raise StorageError(
            f"{prefix / file.name} does not have the SHA-256 that its manifest records; "
            "it was changed or damaged after it was written"
        )
    return body


def verify(store: ObjectStore, prefix: ObjectUri) -> ResultManifest:
    """Fetch every file and check it; raises StorageError where the manifest or a file is amiss."""
    manifest = find(store, prefix)
    if manifest is None:
        raise StorageError(f"{prefix} has no manifest.json: this result was never finished")
    for file in manifest.files:
        fetch(store, prefix, file)
    return manifest
