"""Uploads ``dist/`` to S3 under names that follow from the content, so that nothing is ever overwritten.

``code/`` holds the artifact and ParallelCluster's custom actions. ``mwaa/HASH/`` is one release for MWAA:
everything that goes together, so that one update of the environment moves to it, or back to an older one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import StorageError
from tasks.object_store import ObjectStore, ObjectUri


@dataclass(frozen=True)
class Published:
    """An object of the release, and whether this upload created it."""

    uri: ObjectUri
    path: Path
    is_new: bool


def publish(dist: Path, bucket: ObjectUri, store: ObjectStore) -> Iterator[Published]:
    """Upload what :func:`infra.package.build.build` wrote, and tell of each file when it is there.

    :raises StorageError: if the bucket cannot be written, or holds something else under one of the names.
    """
    for key, path in keys(dist).items():
        uri = ObjectUri(bucket.bucket, f"{bucket.key}/{key}" if bucket.key else key)
        is_new = store.put_bytes(uri, path.read_bytes(), if_absent=True)
        if not is_new and store.get_bytes(uri) != path.read_bytes():
            raise StorageError(
                f"{uri} holds something else than {path}, and its name says that it does not: somebody wrote it "
                "by hand. Delete that object and publish again"
            )
        yield Published(uri, path, is_new)


def keys(dist: Path) -> dict[str, Path]:
    """The object of each file; the release of MWAA comes last."""
    code, mwaa = {}, {}
    for path in sorted(path for path in dist.rglob("*") if path.is_file()):
        name = path.relative_to(dist).as_posix()
        if name == "plugins.zip" or name.startswith(("dags/", "mwaa/")):
            mwaa[name.removeprefix("mwaa/")] = path
        else:
            code[f"code/{name}"] = path
    release = hashlib.sha256()
    for name, path in mwaa.items():
        release.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return code | {f"mwaa/{release.hexdigest()[:32]}/{name}": path for name, path in mwaa.items()}
