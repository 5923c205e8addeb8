"""The command line of the embedding store: ``python -m hpc_jobs.store COMMAND``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from hpc_jobs import store
from hpc_jobs.checked_file import sha256_of
from hpc_jobs.store_export import FORMATS, export
from hpc_jobs.store_manifest import StoreError
from hpc_jobs.vector_dtypes import DTYPES


def main(arguments: list[str] | None = None) -> int:
    """``info``, ``verify``, ``from-npy``, ``to-npy``, ``export``; exit status 1, with what was wrong on stderr."""
    parser = argparse.ArgumentParser(prog="python -m hpc_jobs.store", description="Embedding stores.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, intent in (("info", "print what a store holds"), ("verify", "check every shard")):
        commands.add_parser(name, help=intent).add_argument("directory", type=Path)
    from_npy = commands.add_parser("from-npy", help="make a store of a (rows, dim) array")
    from_npy.add_argument("array", type=Path)
    from_npy.add_argument("directory", type=Path)
    from_npy.add_argument("--dtype", choices=list(DTYPES), default="float32")
    to_npy = commands.add_parser("to-npy", help="write a store's vectors, verified, as one float32 array")
    to_npy.add_argument("directory", type=Path)
    to_npy.add_argument("array", type=Path)
    exported = commands.add_parser(
        "export", help="write a store for other programs, vectors as float32 lists"
    )
    exported.add_argument("directory", type=Path)
    exported.add_argument("out", type=Path, help="directory that must not exist yet")
    exported.add_argument("--format", choices=list(FORMATS), required=True)
    options = parser.parse_args(arguments)
    try:
        if options.command == "from-npy":
            _from_npy(options.array, options.directory, options.dtype)
        elif options.command == "to-npy":
            _to_npy(options.directory, options.array)
        elif options.command == "export":
            export(options.directory, options.out, options.format)
        check = store.verify if options.command == "verify" else store.read_manifest
        manifest = check(options.directory)
    except (StoreError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{options.directory}: {manifest.rows:,} x {manifest.dim} {manifest.dtype} in {len(manifest.shards)} "
        f"shards, {'normalised' if manifest.normalised else 'not normalised'}, by {manifest.encoder_uri}"
        + (", all checksums hold" if options.command == "verify" else "")
    )
    return 0


def _from_npy(array: Path, directory: Path, dtype: str) -> None:
    """Read through a memory map, so that the array may be larger than memory."""
    try:
        vectors = np.lib.format.open_memmap(array, mode="r")
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"{array} is not an array that numpy.save wrote: {error}") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or vectors.shape[1] < 1:
        raise StoreError(
            f"{array} holds {vectors.dtype} of shape {vectors.shape}; wanted are floats (rows, dim)"
        )
    ids = pa.array([f"row-{row}" for row in range(len(vectors))], pa.string())
    uri, revision = array.resolve().as_uri(), sha256_of(array)
    store.write_store(directory, ids, vectors, encoder_uri=uri, encoder_revision=revision, dtype=dtype)


def _to_npy(directory: Path, array: Path) -> None:
    """Row by row of shards into a file that appears whole, under the very name that was given."""
    manifest = store.verify(directory)
    temporary = array.with_name(f".{array.name}.part")
    try:
        vectors = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(manifest.rows, manifest.dim)
        )
        for start in range(0, manifest.rows, store.ROW_GROUP_ROWS):
            stop = min(start + store.ROW_GROUP_ROWS, manifest.rows)
            vectors[start:stop] = store.read_vectors(directory, start, stop)
        vectors.flush()
        temporary.replace(array)
    finally:
        temporary.unlink(missing_ok=True)
