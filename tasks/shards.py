"""From landed files to committed shards, part by part; plain functions that know nothing of Ray.

A part is one block of record slots of a file, or of both files of a pair (all of R1's reads, then R2's). It is
the unit of work and of restart: its number, its reads and its vectors depend on the input alone. A part is
committed when its record ``embeddings/parts/<name>.json`` stands; objects are only ever created, never
replaced, so that of two runs at once both end with the same bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.store import NORM_TOLERANCE, Shard, shard_bytes
from tasks.batches import Batch, BatchRequest
from tasks.encoders.protocol import Encoder
from tasks.errors import InvalidEncoder, InvalidReads
from tasks.landing import LandedSample
from tasks.object_store import ObjectStore, ObjectUri
from tasks.reads.accounting import QualityAccounting
from tasks.reads.block import QuarantinedRecord, ReadBlock
from tasks.reads.fastq import read_blocks
from tasks.reads.quality import QualityFilter, mean_qualities
from tasks.results import ResultFile

READS_SCHEMA = pa.schema(
    {
        "read_id": pa.string(),
        "name": pa.string(),
        "sample": pa.string(),
        "sequence": pa.string(),
        "length": pa.int32(),
        "mean_quality": pa.float32(),
    }
)


@dataclass(frozen=True)
class Part:
    """The reads kept of one part, and what became of the others.

    :param name: ``<sample>-<number>``; the stem of its shard.
    :param reads: columns of :data:`READS_SCHEMA`.
    """

    name: str
    reads: pa.Table
    accounting: QualityAccounting
    quarantined: list[QuarantinedRecord]


@dataclass(frozen=True)
class Commit:
    """The record of a committed part; ``shard`` and ``reads`` are None where it keeps no read."""

    name: str
    shard: Shard | None
    reads: ResultFile | None
    accounting: QualityAccounting
    quarantined: list[QuarantinedRecord]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "accounting": self.accounting.to_json()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Commit:
        """What :meth:`to_json` gave."""
        return cls(
            name=fields["name"],
            shard=Shard(**fields["shard"]) if fields["shard"] else None,
            reads=ResultFile(**fields["reads"]) if fields["reads"] else None,
            accounting=QualityAccounting.from_json(fields["accounting"]),
            quarantined=[QuarantinedRecord(**record) for record in fields["quarantined"]],
        )


def quality_filter(request: BatchRequest) -> QualityFilter:
    """The filter that a request asks for."""
    return QualityFilter(
        trim_quality=request.trim_quality,
        min_length=request.min_length,
        min_mean_quality=request.min_mean_quality,
        max_n_fraction=request.max_n_fraction,
    )


def parts_of(
    store: ObjectStore, landing: ObjectUri, sample: LandedSample, quality: QualityFilter, *, skip: set[str]
) -> Iterator[Part | str]:
    """Every part of a sample in order; of those in ``skip`` only the name, without the work.

    :raises InvalidReads: a file is missing or damaged, has another number of records than was landed, or the
        mates of a pair do not go together.
    """
    with ExitStack() as opened:
        blocks = [
            read_blocks(
                opened.enter_context(_landed(store, landing / file.key)),
                source=file.key,
                quality_offset=sample.quality_offset,
            )
            for file in sample.files
        ]
        records = 0
        for number, mates in enumerate(zip_longest(*blocks)):
            _check_mates(sample, mates)
            records += mates[0].slots
            name = f"{sample.name}-{number:05d}"
            yield name if name in skip else _part(name, sample, list(mates), quality)
    for file in sample.files:
        if file.records is not None and file.records != records:
            raise InvalidReads(
                f"{file.key} holds {records:,} records, but {file.records:,} were landed: it was cut, perhaps "
                "at the end of a gzip member, or the manifest is of another file; land it again"
            )


def _landed(store: ObjectStore, uri: ObjectUri) -> BinaryIO:
    try:
        return store.open(uri)
    except FileNotFoundError:
        raise InvalidReads(
            f"{uri} is named in the landing manifest, but is not there; land the batch again"
        ) from None


def _check_mates(sample: LandedSample, mates: tuple[ReadBlock | None, ...]) -> None:
    slots = [block.slots if block else 0 for block in mates]
    if len(set(slots)) > 1:
        first, second = (file.key for file in sample.files)
        raise InvalidReads(
            f"{first} and {second} are a pair, but do not hold the same number of records: after the same "
            f"part they go on with {slots[0]:,} and {slots[1]:,} more; land the two files of one run"
        )


def _part(name: str, sample: LandedSample, mates: list[ReadBlock], quality: QualityFilter) -> Part:
    tables, accounting = [], QualityAccounting()
    for mate, block in enumerate(mates, start=1):
        filtered = quality.apply(block)
        accounting += QualityAccounting.of(block, filtered)
        suffix = f"/{mate}" if len(mates) > 1 else ""
        tables.append(_reads_table(filtered.kept, sample.name, suffix))
    return Part(
        name=name,
        reads=pa.concat_tables(tables),
        accounting=accounting,
        quarantined=[record for block in mates for record in block.quarantined],
    )


def _reads_table(block: ReadBlock, sample: str, suffix: str) -> pa.Table:
    lengths = np.diff(block.offsets)
    sequences = pa.LargeStringArray.from_buffers(
        len(block), pa.py_buffer(np.ascontiguousarray(block.offsets)), pa.py_buffer(block.sequence)
    )
    columns = [
        pa.array([f"{sample}:{number}{suffix}" for number in block.record_numbers.tolist()], pa.string()),
        pa.array([name.decode("utf-8", "backslashreplace") for name in block.names], pa.string()),
        pa.array([sample] * len(block), pa.string()),
        sequences.cast(pa.string()),
        pa.array(lengths, pa.int32()),
        pa.array(mean_qualities(block), pa.float32()),
    ]
    return pa.table(columns, schema=READS_SCHEMA)


def committed(store: ObjectStore, batch: Batch) -> set[str]:
    """Names of the parts that an earlier run committed."""
    return {info.uri.name.removesuffix(".json") for info in store.list(_parts(batch))}


def commit_part(store: ObjectStore, batch: Batch, part: Part, encoder: Encoder) -> Commit:
    """Encode a part's reads, write its objects, then its commit record; gives the record that stands.

    :raises InvalidEncoder: the encoder's vectors are not of length 1.
    """
    shard = reads = None
    if part.reads.num_rows:
        name = f"{part.name}.parquet"
        vectors = encoder.encode(part.reads)
        _check_unit(vectors, part.name, encoder)
        body = shard_bytes(part.reads["read_id"].combine_chunks(), vectors)
        stored = _create(store, batch.results / "embeddings" / name, body)
        shard = Shard(name, part.reads.num_rows, len(stored), hashlib.sha256(stored).hexdigest())
        target = io.BytesIO()
        pq.write_table(part.reads, target, compression="zstd")
        stored = _create(store, batch.results / "reads" / name, target.getvalue())
        reads = ResultFile(name, len(stored), hashlib.sha256(stored).hexdigest())
    commit = Commit(part.name, shard, reads, part.accounting, part.quarantined)
    record = _parts(batch) / f"{part.name}.json"
    if store.put_json(record, commit.to_json(), if_absent=True):
        return commit
    return read_commit(store, batch, part.name)


def _check_unit(vectors: np.ndarray, name: str, encoder: Encoder) -> None:
    """The store's manifest promises vectors of length 1, or zero; NaN and infinity are neither."""
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = ~((lengths == 0) | (np.abs(lengths - 1) <= NORM_TOLERANCE))
    if wrong.any():
        raise InvalidEncoder(
            f"{encoder.uri} gives vectors that are not of length 1: {wrong.sum():,} of the {len(vectors):,} of "
            f"{name}, the first for its row {int(wrong.argmax())}; retrain it or name another encoder"
        )


def read_commit(store: ObjectStore, batch: Batch, name: str) -> Commit:
    """The commit record of a part."""
    return Commit.from_json(store.get_json(_parts(batch) / f"{name}.json"))


def _create(store: ObjectStore, uri: ObjectUri, body: bytes) -> bytes:
    """Write an object that is not there yet; gives the bytes that stand there, ours or an earlier run's."""
    return body if store.put_bytes(uri, body, if_absent=True) else store.get_bytes(uri)


def _parts(batch: Batch) -> ObjectUri:
    return batch.results / "embeddings" / "parts"
