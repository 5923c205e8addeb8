"""Files of encoders, fetched once per node however many workers ask, and verified at each use.

They lie in ``$STRANDLOOP_CACHE``, by default ``~/.cache/strandloop``, one directory per key. A directory appears
complete or not at all, with the SHA-256 of its files next to it. It may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import StorageError


def on_this_node(key: str, fetch: Callable[[Path], None]) -> Path:
    """The directory of ``key``; where this node does not have it, ``fetch`` fills it while others wait.

    A directory whose files are not what was fetched is fetched again.

    :param key: names the content for good (a checksum or a commit is part of it); may contain ``/``.
    :param fetch: writes the files into the directory that it is given, checked against what their source says.
    :raises StorageError: the cache cannot be written. What ``fetch`` raises comes through, and leaves nothing.
    """
    directory = cache_root() / key
    with _locked(directory.with_name(directory.name + ".lock")):
        if not _is_intact(directory):
            _fill(directory, fetch)
    return directory


def cache_root() -> Path:
    """Where encoders are kept on this node."""
    return Path(os.environ.get("STRANDLOOP_CACHE") or Path.home() / ".cache" / "strandloop")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fill(directory: Path, fetch: Callable[[Path], None]) -> None:
    partial = directory.with_name(directory.name + ".partial")
    for leftover in (partial, directory):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir()
    try:
        fetch(partial)
        _checksums_of(directory).write_text(json.dumps(_measured(partial), indent=2, sort_keys=True) + "\n")
        partial.replace(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_intact(directory: Path) -> bool:
    try:
        recorded = json.loads(_checksums_of(directory).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return directory.is_dir() and bool(_measured(directory) == recorded)


def _measured(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): sha256_of(path) for path in files}


def _checksums_of(directory: Path) -> Path:
    return directory.with_name(directory.name + ".sha256.json")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock for the block; the system releases it when a holder dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise StorageError(
            f"encoders cannot be kept in {cache_root()}: {error}; set STRANDLOOP_CACHE to a directory that can be "
            "written on every node"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
