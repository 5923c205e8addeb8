"""The embedding store: what phase 1 hands to phase 2. The one module that writes and reads it.

A store is a directory of Parquet shards and a ``manifest.json``, written last, that names them with rows,
bytes and SHA-256. A shard has the columns ``read_id`` (string), ``vector`` (``fixed_size_binary``: dim
components, little-endian) and, where the dtype is int8, ``scale`` (float32; see
:mod:`hpc_jobs.vector_dtypes`): PLAIN, uncompressed, in row groups of 16,384, so that a rank reads its slice
of rows close to the speed of the disk. Row ``i`` of the store is row ``i`` of the shards laid end to end in
the order of the manifest.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.checked_file import sha256_of, write_whole
from hpc_jobs.store_manifest import ID_COLUMN, MANIFEST, Shard, StoreError, StoreManifest
from hpc_jobs.vector_dtypes import DTYPES, pack, unpack

__all__ = [
    "ID_COLUMN",
    "MANIFEST",
    "NORM_TOLERANCE",
    "Shard",
    "StoreError",
    "StoreManifest",
    "is_unit",
    "read_ids",
    "read_manifest",
    "read_vectors",
    "shard_bytes",
    "shard_problem",
    "shard_schema",
    "vectors_of",
    "verify",
    "write_store",
]
ROW_GROUP_ROWS = 16_384
ROWS_AT_ONCE = 2_048  # decoded: a whole row group of 768 components takes 50 MB
NORM_TOLERANCE = 1e-3
"""A vector counts as normalised where its length is 1 within this, or exactly 0."""


def shard_schema(dim: int, dtype: str) -> pa.Schema:
    """The columns of a shard, with ``dim`` and ``dtype`` in the metadata."""
    vector = pa.binary(DTYPES[dtype].itemsize * dim)
    fields = [pa.field(ID_COLUMN, pa.string(), False), pa.field("vector", vector, False)]
    if dtype == "int8":
        fields.append(pa.field("scale", pa.float32(), False))
    return pa.schema(fields, metadata={"dim": str(dim), "dtype": dtype})


def shard_bytes(read_ids: pa.Array, vectors: np.ndarray, dtype: str = "float32") -> bytes:
    """One shard as Parquet: the same input gives the same bytes (with the same pyarrow).

    :param read_ids: string array of n.
    :param vectors: float32 (n, dim).
    :raises StoreError: ids and vectors do not fit, or the dtype cannot hold the vectors.
    """
    if vectors.ndim != 2 or len(read_ids) != len(vectors):
        raise StoreError(f"{len(read_ids)} read ids do not fit vectors of shape {vectors.shape}")
    try:
        codes, scales = pack(vectors, dtype)
    except ValueError as error:
        raise StoreError(str(error)) from error
    schema = shard_schema(vectors.shape[1], dtype)
    columns = [
        read_ids,
        pa.Array.from_buffers(schema.field("vector").type, len(codes), [None, pa.py_buffer(codes)]),
        *([] if scales is None else [pa.array(scales, pa.float32())]),
    ]
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


def is_unit(vectors: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Whether each vector, as it is read back from ``dtype``, has length 1 or is zero: bool (n)."""
    lengths = np.linalg.norm(unpack(*pack(vectors, dtype)), axis=1)
    return (lengths == 0) | (np.abs(lengths - 1) <= NORM_TOLERANCE)


def write_store(
    directory: Path,
    read_ids: pa.Array,
    vectors: np.ndarray,
    *,
    encoder_uri: str,
    encoder_revision: str,
    dtype: str = "float32",
    shard_rows: int = 131_072,
) -> StoreManifest:
    """Write a whole store of one array, the manifest last; ``normalised`` in it is measured.

    :param read_ids: string array of n.
    :param vectors: (n, dim), converted to float32, then to ``dtype``.
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
        body = shard_bytes(read_ids[start : start + shard_rows], block, dtype)
        name = f"part-{len(shards):05d}.parquet"
        shards.append(Shard(name, len(block), len(body), write_whole(directory / name, body)))
        normalised &= bool(is_unit(block, dtype).all())
    manifest = StoreManifest(
        rows=len(vectors),
        dim=vectors.shape[1],
        dtype=dtype,
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
    expected = shard_schema(manifest.dim, manifest.dtype)
    if not schema.equals(expected) or not expected.metadata.items() <= (schema.metadata or {}).items():
        return f"{shard.name} does not hold {ID_COLUMN} and vectors of {manifest.dim} x {manifest.dtype}"
    return None


def read_vectors(directory: Path, start: int, stop: int, into: np.ndarray | None = None) -> np.ndarray:
    """Rows ``start`` to ``stop`` (exclusive): float32 (stop - start, dim), whatever the dtype of the store.

    :param into: an array of that shape to fill.
    """
    manifest = read_manifest(directory)
    names = shard_schema(manifest.dim, manifest.dtype).names[1:]
    vectors = np.empty((stop - start, manifest.dim), np.float32) if into is None else into
    filled = 0
    for rows in _read_columns(directory, manifest, names, start, stop):
        vectors[filled : filled + len(rows)] = vectors_of(rows, manifest)
        filled += len(rows)
    return vectors


def vectors_of(rows: pa.RecordBatch, manifest: StoreManifest) -> np.ndarray:
    """The vectors of rows of a shard, float32 (rows, dim); raises StoreError where one is missing."""
    column = rows["vector"]
    if column.null_count:
        raise StoreError("the store holds rows without a vector")
    dtype: np.dtype[Any] = DTYPES[manifest.dtype]
    codes = np.frombuffer(column.buffers()[1], dtype).reshape(-1, manifest.dim)
    scales = rows["scale"].to_numpy() if manifest.dtype == "int8" else None
    return unpack(codes[column.offset : column.offset + len(column)], scales)


def read_ids(directory: Path, start: int, stop: int) -> pa.Array:
    """The read ids of rows ``start`` to ``stop`` (exclusive), a string array."""
    found = _read_columns(directory, read_manifest(directory), [ID_COLUMN], start, stop)
    return pa.concat_arrays([pa.array([], pa.string()), *(rows[ID_COLUMN] for rows in found)])


def _read_columns(
    directory: Path, manifest: StoreManifest, columns: list[str], start: int, stop: int
) -> Iterator[pa.RecordBatch]:
    """The rows ``start`` to ``stop``, a few at a time; row groups without any of them are not touched."""
    if not 0 <= start <= stop <= manifest.rows:
        raise StoreError(f"rows {start} to {stop} are not within the {manifest.rows} rows of {directory}")
    shard_start = 0
    for shard in manifest.shards:
        if shard_start < stop and start < shard_start + shard.rows:
            try:
                with pq.ParquetFile(directory / shard.name, memory_map=True) as file:
                    yield from _read_row_groups(file, columns, start - shard_start, stop - shard_start)
            except (OSError, pa.ArrowException, KeyError) as error:
                raise StoreError(f"{directory / shard.name} cannot be read: {error}") from error
        shard_start += shard.rows


def _read_row_groups(
    file: pq.ParquetFile, columns: list[str], start: int, stop: int
) -> Iterator[pa.RecordBatch]:
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if start < first + rows and first < stop:
            at = first
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns):
                low, high = max(start - at, 0), min(stop - at, len(batch))
                if low < high:
                    yield batch.slice(low, high - low)
                at += len(batch)
        first += rows


if __name__ == "__main__":
    from hpc_jobs.store_commands import main  # which imports this module under its own name

    sys.exit(main())
