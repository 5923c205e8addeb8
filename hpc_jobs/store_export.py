"""An embedding store in the formats of other programs: vectors as fixed-size lists of float32."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.store import vectors_of, verify
from hpc_jobs.store_manifest import ID_COLUMN, StoreError, StoreManifest


def export(directory: Path, out: Path, form: str) -> None:
    """Write the store in ``directory``, verified, to the new directory ``out``, one row group at a time.

    :param form: ``fixed-size-list``: Parquet files named as the shards, which DuckDB and Polars read as
        ``out/*.parquet``; ``lance``: a Lance dataset.
    :raises StoreError: the store is damaged, ``out`` exists, or the package for the format is not installed.
    """
    if out.exists():
        raise StoreError(f"{out} exists already; remove it or export to another directory")
    manifest = verify(directory)
    partial = out.with_name(f".{out.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    FORMATS[form](directory, manifest, partial)
    partial.rename(out)


def _fixed_size_lists(directory: Path, manifest: StoreManifest, out: Path) -> None:
    out.mkdir(parents=True)
    for shard in manifest.shards:
        with pq.ParquetWriter(out / shard.name, _schema(manifest), compression="zstd") as writer:
            for rows in _rows(directory / shard.name, manifest):
                writer.write_batch(rows)


def _lance(directory: Path, manifest: StoreManifest, out: Path) -> None:
    try:
        lance = import_module("lance")
    except ImportError as error:
        raise StoreError(
            "Lance is not installed here; install it (pip install pylance), or use fixed-size-list"
        ) from error
    rows = (rows for shard in manifest.shards for rows in _rows(directory / shard.name, manifest))
    lance.write_dataset(pa.RecordBatchReader.from_batches(_schema(manifest), rows), out)


FORMATS: dict[str, Callable[[Path, StoreManifest, Path], None]] = {
    "fixed-size-list": _fixed_size_lists,
    "lance": _lance,
}


def _schema(manifest: StoreManifest) -> pa.Schema:
    vector = pa.list_(pa.field("item", pa.float32(), False), manifest.dim)
    return pa.schema([pa.field(ID_COLUMN, pa.string(), False), pa.field("vector", vector, False)])


def _rows(shard: Path, manifest: StoreManifest) -> Iterator[pa.RecordBatch]:
    schema = _schema(manifest)
    with pq.ParquetFile(shard) as file:
        for rows in file.iter_batches():
            components = pa.array(vectors_of(rows, manifest).ravel(), pa.float32())
            lists = pa.FixedSizeListArray.from_arrays(components, type=schema.field("vector").type)
            yield pa.record_batch([rows[ID_COLUMN], lists], schema=schema)
