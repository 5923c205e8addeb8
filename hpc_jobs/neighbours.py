"""The k-NN graph as files: what the MPI kernel writes and the graph step reads.

A directory of Parquet parts, one per rank, and a ``manifest.json``, written last. Columns: ``query`` and
``neighbour`` (int64, rows of the embedding store), ``rank`` (int32, from 1), ``score`` (float32, by the metric;
higher is nearer); ordered by query, then rank. How the rows are cut into parts depends on the number of ranks, the
rows do not.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.checked_file import sha256_of, write_whole

FORMAT = "strandloop-knn"
QUERIES_PER_GROUP = 65_536
SCHEMA = pa.schema(
    [
        pa.field("query", pa.int64(), False),
        pa.field("neighbour", pa.int64(), False),
        pa.field("rank", pa.int32(), False),
        pa.field("score", pa.float32(), False),
    ]
)


class NeighboursError(Exception):
    """The k-NN result is missing, unfinished, damaged, or of another embedding store."""


@dataclass(frozen=True)
class Part:
    """One Parquet file of the result."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class NeighbourManifest:
    """What a result holds.

    :param rows: reads, that is queries; each has min(k, rows - 1) neighbours.
    :param store_sha256: SHA-256 of the ``manifest.json`` of the embedding store that was compared.
    :param metric: ``cosine``, ``dot`` or ``l2``, of which the score is the negative square.
    :param approximate: None of an exact result; else the numbers of :class:`hpc_jobs.mpi_dna_seq.cells.Cells` and
        :class:`hpc_jobs.mpi_dna_seq.cells.Quality`, the measured ``recall`` among them.
    """

    rows: int
    k: int
    store_sha256: str
    files: tuple[Part, ...]
    metric: str = "cosine"
    approximate: dict[str, Any] | None = None

    @property
    def edges(self) -> int:
        """Directed edges: one per query and neighbour."""
        return sum(part.rows for part in self.files)

    def to_json(self) -> dict[str, Any]:
        """The fields of ``manifest.json``."""
        return {
            "format": FORMAT,
            "rows": self.rows,
            "k": self.k,
            "metric": self.metric,
            "store_sha256": self.store_sha256,
            "files": [asdict(part) for part in self.files],
            **({"approximate": self.approximate} if self.approximate else {}),
        }


def write_part(directory: Path, number: int, *, first_row: int, ids: np.ndarray, scores: np.ndarray) -> Part:
    """Write the neighbours of consecutive queries from ``first_row`` on as ``knn-<number>.parquet``.

    :param ids: int64 (n, k), neighbour rows in order of rank.
    :param scores: float32 (n, k).
    """
    path = directory / f"knn-{number:05d}.parquet"
    temporary = path.with_name(f".{path.name}")
    queries, k = ids.shape
    with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
        for start in range(0, queries, QUERIES_PER_GROUP):
            stop = min(start + QUERIES_PER_GROUP, queries)
            columns = [
                np.repeat(np.arange(first_row + start, first_row + stop, dtype=np.int64), k),
                ids[start:stop].ravel(),
                np.tile(np.arange(1, k + 1, dtype=np.int32), stop - start),
                scores[start:stop].ravel(),
            ]
            # not pa.array(): it imports pandas where there is one, a second on every rank
            arrays = [
                pa.Array.from_buffers(field.type, len(column), [None, pa.py_buffer(column)])
                for field, column in zip(SCHEMA, columns, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=SCHEMA))
    part = Part(path.name, queries * k, temporary.stat().st_size, sha256_of(temporary))
    temporary.replace(path)
    return part


def write_manifest(directory: Path, manifest: NeighbourManifest) -> None:
    """Make the result exist, after all of its parts."""
    body = json.dumps(manifest.to_json(), indent=2, sort_keys=True).encode() + b"\n"
    write_whole(directory / "manifest.json", body)


def clear(directory: Path) -> None:
    """Remove a former result, its manifest first; another number of ranks would leave parts of it behind."""
    (directory / "manifest.json").unlink(missing_ok=True)
    for former in (*directory.glob("knn-*.parquet"), *directory.glob(".knn-*.parquet")):
        former.unlink()


def find(directory: Path) -> NeighbourManifest | None:
    """The manifest of a finished result, or None where there is none."""
    path = directory / "manifest.json"
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] != FORMAT:
            raise NeighboursError(f"{path} is of format {fields['format']!r}, not {FORMAT!r}")
        files = tuple(Part(**part) for part in fields["files"])
        return NeighbourManifest(
            fields["rows"],
            fields["k"],
            fields["store_sha256"],
            files,
            fields["metric"],
            fields.get("approximate"),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise NeighboursError(f"{path} is not the manifest of a k-NN result: {error!r}") from error


def verify(directory: Path) -> NeighbourManifest:
    """Check that the result is finished and every part is as the manifest says, or raise NeighboursError."""
    manifest = find(directory)
    if manifest is None:
        raise NeighboursError(f"{directory} has no manifest.json: the k-NN graph was not computed to its end")
    for part in manifest.files:
        path = directory / part.name
        if not path.is_file() or path.stat().st_size != part.bytes or sha256_of(path) != part.sha256:
            raise NeighboursError(f"{path} is missing or damaged; remove {directory} and compute it again")
    return manifest


def read(directory: Path) -> pa.Table:
    """The whole result, verified, as one table ordered by query and rank."""
    manifest = verify(directory)
    tables = [pq.read_table(directory / part.name, schema=SCHEMA) for part in manifest.files]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()
