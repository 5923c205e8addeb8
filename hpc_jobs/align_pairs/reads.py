"""The sequences of all reads, once in the memory of each node, whichever of its ranks asks for one.

They come as the files that phase 1 keeps beside the embeddings: for each shard of the embedding store a Parquet
file of the same name with the columns ``read_id`` and ``sequence``, the same rows in the same order, and a
``manifest.json`` with the SHA-256 of each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from mpi4py import MPI

from hpc_jobs import store
from hpc_jobs.align_pairs.alignment import LONGEST
from hpc_jobs.checked_file import sha256_of
from hpc_jobs.store_manifest import ID_COLUMN, MANIFEST, StoreManifest

SEQUENCE_COLUMN = "sequence"


class ReadsError(Exception):
    """The reads are missing, damaged, too long to align, or not those of the embedding store."""


class NodeReads:
    """``reads[row]`` gives the letters of a read. Memory per node: all bases, and 8 bytes a read.

    :param bases: of the file of each shard, from :func:`checked_bases`.
    """

    def __init__(self, comm: MPI.Intracomm, manifest: StoreManifest, bases: Sequence[int]) -> None:
        """Reserve the memory, empty; collective."""
        self._manifest = manifest
        self._bases = bases
        node = comm.Split_type(MPI.COMM_TYPE_SHARED)
        assert isinstance(node, MPI.Intracomm)
        self._node = node
        offsets_bytes = 8 * (manifest.rows + 1)
        size = offsets_bytes + sum(bases) if self._node.rank == 0 else 0
        self._window = MPI.Win.Allocate_shared(size, 1, MPI.INFO_NULL, self._node)
        memory = np.asarray(self._window.Shared_query(0)[0])
        self._offsets = memory[:offsets_bytes].view(np.int64)
        self._letters = memory[offsets_bytes:]

    def __getitem__(self, row: int) -> bytes:
        return self._letters[self._offsets[row] : self._offsets[row + 1]].tobytes()

    def fill(self, directory: Path) -> None:
        """Read this rank's share of the node's files; the reads are there when all of its ranks have done so."""
        row = base = 0
        for number, (shard, bases) in enumerate(zip(self._manifest.shards, self._bases, strict=True)):
            if number % self._node.size == self._node.rank:
                sequences = _read(directory / shard.name, SEQUENCE_COLUMN)
                offsets, letters = _buffers(sequences)
                self._letters[base : base + bases] = letters
                self._offsets[row : row + shard.rows] = base + offsets[:-1]
            row += shard.rows
            base += bases
        if self._node.rank == 0:
            self._offsets[row] = base
        self._window.Sync()

    def close(self) -> None:
        """Give the memory back; collective."""
        del self._offsets, self._letters
        self._window.Free()
        self._node.Free()


def checked_bases(
    directory: Path, store_directory: Path, manifest: StoreManifest, numbers: Sequence[int]
) -> dict[int, int]:
    """Check the files of these shards, by their number, and count their bases.

    :raises ReadsError: a file is not there or damaged, holds other reads than the shard, or one that is too long.
    """
    checksums = _checksums(directory)
    starts = np.cumsum([0, *(shard.rows for shard in manifest.shards)])
    bases = {}
    for number in numbers:
        shard = manifest.shards[number]
        path = directory / shard.name
        if shard.name not in checksums or not path.is_file():
            raise ReadsError(
                f"{path} is not there, or not named in {directory / MANIFEST}: the reads of {shard.name} are "
                "missing; stage the reads of the batch that was embedded"
            )
        if sha256_of(path) != checksums[shard.name]:
            raise ReadsError(f"{path} does not have the SHA-256 of {directory / MANIFEST}; fetch it again")
        read_ids, sequences = _read(path, ID_COLUMN), _read(path, SEQUENCE_COLUMN)
        embedded = store.read_ids(store_directory, int(starts[number]), int(starts[number + 1]))
        if not read_ids.equals(embedded):
            raise ReadsError(
                f"{path} does not hold the reads that {store_directory / shard.name} embeds, in their order; stage "
                "the reads of the batch that was embedded"
            )
        lengths = np.diff(_buffers(sequences)[0])
        if len(lengths) and lengths.max() > LONGEST:
            row = int(lengths.argmax())
            raise ReadsError(
                f"read {read_ids[row]} of {path} has {lengths[row]:,} bases, and {LONGEST:,} can be aligned; "
                "embed the batch with windows (window_bases)"
            )
        bases[number] = int(lengths.sum())
    return bases


def _checksums(directory: Path) -> dict[str, str]:
    path = directory / MANIFEST
    try:
        return {file["name"]: file["sha256"] for file in json.loads(path.read_bytes())["files"]}
    except FileNotFoundError as error:
        raise ReadsError(
            f"{directory} has no {MANIFEST}: no reads, or reads that were never finished"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ReadsError(f"{path} is not the manifest of a batch's reads: {error!r}") from error


def _read(path: Path, column: str) -> pa.Array:
    """A text column of a file, without nulls."""
    try:
        values = pq.read_table(path, columns=[column])[column].combine_chunks().cast(pa.string())
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ReadsError(f"{path} has no readable column {column!r}: {error}") from error
    if values.null_count:
        raise ReadsError(f"{path} has reads without {column}; fetch it again")
    return values


def _buffers(sequences: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Offsets, int64 (reads + 1) from 0, and letters, uint8, of a string array."""
    lengths = pc.binary_length(sequences).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if not len(sequences):
        return offsets, np.empty(0, np.uint8)
    _, positions, letters = sequences.buffers()
    begin = np.frombuffer(positions, np.int32)[sequences.offset]
    return offsets, np.frombuffer(letters or b"", np.uint8)[begin : begin + offsets[-1]]
