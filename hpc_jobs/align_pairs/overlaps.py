"""Verified overlaps as files: what the alignment writes, and the graph step and the retraining read.

A directory of Parquet parts, one per rank, and a ``manifest.json``, written last. A row is a pair of reads that
overlap: ``first`` < ``second`` (int64, rows of the embedding store), ``similarity`` (float32, of the k-NN edge) and
the fields of :class:`hpc_jobs.align_pairs.alignment.Overlap`; ordered by first, then second within a part. Pairs
are divided among parts by a hash, so which part holds a pair depends on the number of ranks; the rows do not.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.neighbours import Part

FORMAT = "strandloop-overlaps"
SCHEMA = pa.schema(
    {
        "first": pa.int64(),
        "second": pa.int64(),
        "similarity": pa.float32(),
        "strand": pa.int8(),
        "first_begin": pa.int32(),
        "first_end": pa.int32(),
        "second_begin": pa.int32(),
        "second_end": pa.int32(),
        "length": pa.int32(),
        "identity": pa.float32(),
        "score": pa.int32(),
    }
)


class OverlapsError(Exception):
    """The overlaps are missing, unfinished or damaged."""


@dataclass(frozen=True)
class Request:
    """What was asked for; a result of the same request need not be computed again.

    :param knn_sha256: SHA-256 of the ``manifest.json`` of the k-NN result whose pairs were aligned.
    :param mutual: only pairs that name each other as neighbours were aligned, not every edge.
    :param minimum_overlap: columns of the alignment.
    :param minimum_identity: share of columns that match.
    """

    store_sha256: str
    knn_sha256: str
    mutual: bool
    minimum_overlap: int
    minimum_identity: float


@dataclass(frozen=True)
class OverlapManifest:
    """What a result holds.

    :param pairs: how many pairs were aligned.
    """

    request: Request
    pairs: int
    files: tuple[Part, ...]

    @property
    def overlaps(self) -> int:
        """How many of the pairs overlap."""
        return sum(part.rows for part in self.files)


def part_name(number: int) -> str:
    """The file name of a rank's part."""
    return f"overlaps-{number:05d}.parquet"


def write_manifest(directory: Path, manifest: OverlapManifest) -> None:
    """Make the result exist, after all of its parts."""
    fields = {"format": FORMAT, "overlaps": manifest.overlaps, **asdict(manifest)}
    write_whole(directory / "manifest.json", json.dumps(fields, indent=2, sort_keys=True).encode() + b"\n")


def clear(directory: Path) -> None:
    """Remove a former result, its manifest first."""
    (directory / "manifest.json").unlink(missing_ok=True)
    for former in (*directory.glob("overlaps-*.parquet"), *directory.glob(".overlaps-*.parquet")):
        former.unlink()


def find(directory: Path) -> OverlapManifest | None:
    """The manifest of a finished result, or None where there is none."""
    path = directory / "manifest.json"
    try:
        fields: dict[str, Any] = json.loads(path.read_bytes())
        if fields["format"] != FORMAT:
            raise OverlapsError(f"{path} is of format {fields['format']!r}, not {FORMAT!r}")
        files = tuple(Part(**part) for part in fields["files"])
        return OverlapManifest(Request(**fields["request"]), fields["pairs"], files)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise OverlapsError(f"{path} is not the manifest of overlaps: {error!r}") from error


def verify(directory: Path) -> OverlapManifest:
    """Check that the result is finished and every part is as the manifest says, or raise OverlapsError."""
    manifest = find(directory)
    if manifest is None:
        raise OverlapsError(f"{directory} has no manifest.json: the pairs were not aligned to the end")
    for part in manifest.files:
        path = directory / part.name
        if not path.is_file() or path.stat().st_size != part.bytes or sha256_of(path) != part.sha256:
            raise OverlapsError(f"{path} is missing or damaged; remove {directory} and align again")
    return manifest


def read(directory: Path) -> pa.Table:
    """The whole result, verified, as one table of :data:`SCHEMA`, ordered by first and second read."""
    manifest = verify(directory)
    tables = [pq.read_table(directory / part.name, schema=SCHEMA) for part in manifest.files]
    return pa.concat_tables([SCHEMA.empty_table(), *tables]).sort_by(
        [("first", "ascending"), ("second", "ascending")]
    )
