"""The embedding store: what phase 1 hands to phase 2. The one module that writes and reads it.

A store is a directory of Parquet shards and a ``manifest.json``, written last, that names them with rows,
bytes and SHA-256. A shard has two columns, ``read_id`` (string) and ``vector`` (``fixed_size_binary`` of
4 * dim bytes, little-endian float32): PLAIN, uncompressed, in row groups of 16,384, so that a rank reads its
slice of rows close to the speed of the disk. Row ``i`` of the store is row ``i`` of the shards laid end to end
in the order of the manifest.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.checked_file import sha256_of, write_whole

MANIFEST = "manifest.json"
FORMAT = "strandloop-embeddings"
FORMAT_VERSION = 1
DTYPE = "float32"
ID_COLUMN = "read_id"
ROW_GROUP_ROWS = 16_384
NORM_TOLERANCE = 1e-3
"""A vector counts as normalised where its length is 1 within this, or exactly 0."""


class StoreError(Exception):
    """The store is missing, unfinished, damaged, or not what its manifest says."""


@dataclass(frozen=True)
class Shard:
    """One Parquet file of the store."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class StoreManifest:
    """What a store holds.

    :param normalised: every vector has length 1 within :data:`NORM_TOLERANCE`, or is zero.
    :param encoder_uri: the encoder as resolved, with its version.
    :param encoder_revision: checksum of the encoder's weights.
    """

    rows: int
    dim: int
    dtype: str
    normalised: bool
    encoder_uri: str
    encoder_revision: str
    shards: tuple[Shard, ...]

    def to_json(self) -> dict[str, Any]:
        """The fields of ``manifest.json``."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "rows": self.rows,
            "dim": self.dim,
            "dtype": self.dtype,
            "normalised": self.normalised,
            "encoder": {"uri": self.encoder_uri, "revision": self.encoder_revision},
            "id_column": ID_COLUMN,
            "shards": [asdict(shard) for shard in self.shards],
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> StoreManifest:
        """Read what :meth:`to_json` gave; raises StoreError where a field is missing or does not fit."""
        try:
            if (fields["format"], fields["format_version"]) != (FORMAT, FORMAT_VERSION):
                raise StoreError(
                    f"the manifest says format {fields['format']!r} version {fields['format_version']!r}; "
                    f"this code reads {FORMAT!r} version {FORMAT_VERSION}"
                )
            manifest = cls(
                rows=int(fields["rows"]),
                dim=int(fields["dim"]),
                dtype=fields["dtype"],
                normalised=bool(fields["normalised"]),
                encoder_uri=fields["encoder"]["uri"],
                encoder_revision=fields["encoder"]["revision"],
                shards=tuple(Shard(**shard) for shard in fields["shards"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"the manifest of the embedding store is not complete: {error!r}") from error
        in_shards = sum(shard.rows for shard in manifest.shards)
        if in_shards != manifest.rows:
            raise StoreError(f"the manifest says {manifest.rows} rows, but its shards add up to {in_shards}")
        if manifest.dtype != DTYPE or manifest.dim < 1:
            raise StoreError(f"vectors of {manifest.dim} x {manifest.dtype} cannot be read; {DTYPE} can")
        for shard in manifest.shards:
            if Path(shard.name).name != shard.name or shard.name.startswith("."):
                raise StoreError(f"{shard.name!r} is not a file name that a shard may have")
        return manifest


def shard_bytes(read_ids: pa.Array, vectors: np.ndarray) -> bytes:
    """One shard as Parquet: the same input gives the same bytes (with the same pyarrow).

    :param read_ids: string array of n.
    :param vectors: float32 (n, dim).
    """
    if vectors.ndim != 2 or len(read_ids) != len(vectors):
        raise StoreError(f"{len(read_ids)} read ids do not fit vectors of shape {vectors.shape}")
    dim = vectors.shape[1]
    packed = np.ascontiguousarray(vectors, dtype="<f4")
    columns = {
        ID_COLUMN: pa.array(read_ids, pa.string()) if not isinstance(read_ids, pa.Array) else read_ids,
        "vector": pa.Array.from_buffers(pa.binary(4 * dim), len(packed), [None, pa.py_buffer(packed)]),
    }
    schema = pa.schema(
        [pa.field(ID_COLUMN, pa.string(), False), pa.field("vector", pa.binary(4 * dim), False)],
        metadata={"dim": str(dim), "dtype": DTYPE},
    )
    target = io.BytesIO()
    pq.write_table(
        pa.table(columns, schema=schema),
        target,
        row_group_size=ROW_GROUP_ROWS,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    return target.getvalue()


def write_store(
    directory: Path,
    read_ids: pa.Array,
    vectors: np.ndarray,
    *,
    encoder_uri: str,
    encoder_revision: str,
    shard_rows: int = 131_072,
) -> StoreManifest:
    """Write a whole store of one array, the manifest last; ``normalised`` in it is measured.

    :param read_ids: string array of n.
    :param vectors: (n, dim), converted to float32.
    :raises StoreError: the directory holds a store already, or ids and vectors do not fit.
    """
    if vectors.ndim != 2 or len(read_ids) != len(vectors):
        raise StoreError(f"{len(read_ids)} read ids do not fit vectors of shape {vectors.shape}")
    if (directory / MANIFEST).exists():
        raise StoreError(f"{directory} already holds a store; remove it or write to another directory")
    directory.mkdir(parents=True, exist_ok=True)
    shards: list[Shard] = []
    normalised = True
    for start in range(0, len(vectors), shard_rows):
        block = np.asarray(vectors[start : start + shard_rows], dtype=np.float32)
        body = shard_bytes(read_ids[start : start + shard_rows], block)
        name = f"part-{len(shards):05d}.parquet"
        shards.append(Shard(name, len(block), len(body), write_whole(directory / name, body)))
        lengths = np.linalg.norm(block, axis=1)
        normalised &= bool(np.all((lengths == 0) | (np.abs(lengths - 1) <= NORM_TOLERANCE)))
    manifest = StoreManifest(
        rows=len(vectors),
        dim=vectors.shape[1],
        dtype=DTYPE,
        normalised=normalised,
        encoder_uri=encoder_uri,
        encoder_revision=encoder_revision,
        shards=tuple(shards),
    )
    body = json.dumps(manifest.to_json(), indent=2, sort_keys=True).encode() + b"\n"
    write_whole(directory / MANIFEST, body)
    return manifest


def read_manifest(directory: Path) -> StoreManifest:
    """The store's manifest; raises StoreError where there is none or it cannot be read."""
    path = directory / MANIFEST
    try:
        return StoreManifest.from_json(json.loads(path.read_bytes()))
    except FileNotFoundError as error:
        raise StoreError(
            f"{directory} has no {MANIFEST}: no embedding store, or one that was never finished"
        ) from error
    except (ValueError, StoreError) as error:
        raise StoreError(f"{path} cannot be used: {error}") from error


def verify(directory: Path) -> StoreManifest:
    """Check every shard against the manifest; raises one StoreError that names all that is wrong."""
    manifest = read_manifest(directory)
    problems = [
        problem for shard in manifest.shards if (problem := shard_problem(directory, manifest, shard))
    ]
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise StoreError(f"the embedding store {directory} is damaged; fetch or write it again:\n{lines}")
    return manifest


def shard_problem(directory: Path, manifest: StoreManifest, shard: Shard) -> str | None:
    """What is wrong with one shard (presence, size, SHA-256, columns, rows), or None."""
    path = directory / shard.name
    if not path.is_file():
        return f"{shard.name} is missing"
    if (size := path.stat().st_size) != shard.bytes:
        return f"{shard.name} has {size} bytes, the manifest says {shard.bytes}"
    if sha256_of(path) != shard.sha256:
        return f"{shard.name} does not have the SHA-256 of the manifest"
    with pq.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
    if rows != shard.rows:
        return f"{shard.name} holds {rows} rows, the manifest says {shard.rows}"
    if schema.names != [ID_COLUMN, "vector"] or schema.field("vector").type != pa.binary(4 * manifest.dim):
        return f"{shard.name} does not hold {ID_COLUMN} and vectors of {manifest.dim} x {manifest.dtype}"
    return None


def read_vectors(directory: Path, start: int, stop: int) -> np.ndarray:
    """Rows ``start`` to ``stop`` (exclusive) as writable float32 (stop - start, dim); checks no checksums.

    :raises StoreError: the range leaves the store, or a shard cannot be read.
    """
    manifest = read_manifest(directory)
    vectors = np.empty((stop - start, manifest.dim), np.float32)
    filled = 0
    for chunk in _read_column(directory, manifest, "vector", start, stop):
        if chunk.null_count:
            raise StoreError(f"{directory} holds rows without a vector")
        packed = np.frombuffer(chunk.buffers()[1], "<f4").reshape(-1, manifest.dim)
        vectors[filled : filled + len(chunk)] = packed[chunk.offset : chunk.offset + len(chunk)]
        filled += len(chunk)
    return vectors


def read_ids(directory: Path, start: int, stop: int) -> pa.Array:
    """The read ids of rows ``start`` to ``stop`` (exclusive), a string array."""
    chunks = list(_read_column(directory, read_manifest(directory), ID_COLUMN, start, stop))
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.string())


def _read_column(
    directory: Path, manifest: StoreManifest, column: str, start: int, stop: int
) -> Iterator[pa.Array]:
    """The column's rows ``start`` to ``stop``, one row group at a time; other row groups are not touched."""
    if not 0 <= start <= stop <= manifest.rows:
        raise StoreError(f"rows {start} to {stop} are not within the {manifest.rows} rows of {directory}")
    shard_start = 0
    for shard in manifest.shards:
        if shard_start < stop and start < shard_start + shard.rows:
            try:
                with pq.ParquetFile(directory / shard.name, memory_map=True) as file:
                    yield from _read_row_groups(file, column, start - shard_start, stop - shard_start)
            except (OSError, pa.ArrowException, KeyError) as error:
                raise StoreError(f"{directory / shard.name} cannot be read: {error}") from error
        shard_start += shard.rows


def _read_row_groups(file: pq.ParquetFile, column: str, start: int, stop: int) -> Iterator[pa.Array]:
    group_start = 0
    for group in range(file.num_row_groups):
        group_rows = file.metadata.row_group(group).num_rows
        low, high = max(start - group_start, 0), min(stop - group_start, group_rows)
        if low < high:
            values = file.read_row_group(group, columns=[column]).column(column)
            yield from values.slice(low, high - low).chunks
        group_start += group_rows


def main(arguments: list[str] | None = None) -> int:
    """``info``, ``verify``, ``from-npy`` and ``to-npy``; the exit status is 1 where the store is at fault."""
    parser = argparse.ArgumentParser(prog="python -m hpc_jobs.store", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, intent in (("info", "print what a store holds"), ("verify", "check every shard")):
        commands.add_parser(name, help=intent).add_argument("directory", type=Path)
    from_npy = commands.add_parser("from-npy", help="make a store of a (rows, dim) array")
    from_npy.add_argument("array", type=Path)
    from_npy.add_argument("directory", type=Path)
    to_npy = commands.add_parser("to-npy", help="write a store's vectors as one array")
    to_npy.add_argument("directory", type=Path)
    to_npy.add_argument("array", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "from-npy":
            _from_npy(options.array, options.directory)
        elif options.command == "to-npy":
            rows = read_manifest(options.directory).rows
            np.save(options.array, read_vectors(options.directory, 0, rows))
        check = verify if options.command == "verify" else read_manifest
        manifest = check(options.directory)
    except StoreError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{options.directory}: {manifest.rows:,} x {manifest.dim} {manifest.dtype} in {len(manifest.shards)} "
        f"shards, {'normalised' if manifest.normalised else 'not normalised'}, by {manifest.encoder_uri}"
        + (", all checksums hold" if options.command == "verify" else "")
    )
    return 0


def _from_npy(array: Path, directory: Path) -> None:
    try:
        vectors = np.load(array, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise StoreError(f"{array} is not an array that numpy.save wrote: {error}") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or vectors.shape[1] < 1:
        raise StoreError(
            f"{array} holds {vectors.dtype} of shape {vectors.shape}; wanted are floats (rows, dim)"
        )
    ids = pa.array([f"row-{row}" for row in range(len(vectors))], pa.string())
    write_store(
        directory, ids, vectors, encoder_uri=array.resolve().as_uri(), encoder_revision=sha256_of(array)
    )


if __name__ == "__main__":
    sys.exit(main())
