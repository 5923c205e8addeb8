"""Files that are whole or absent, and known by their SHA-256."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, body: bytes) -> str:
    """Write ``body`` under a temporary name, flush it to the disk and rename it; gives its SHA-256 (hex).

    A reader sees the old file, the new one or none, never a part; a killed writer leaves at most a
    ``.<name>.*`` file behind.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(body)
            target.flush()
            os.fchmod(target.fileno(), 0o644)
            os.fsync(target.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return hashlib.sha256(body).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file of any size."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
