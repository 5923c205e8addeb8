"""From landed files to parts: parsed, filtered, cut into windows. Plain functions that know nothing of Ray.

A part is one block of record slots of a sample (of pairs: all of mate 1's reads, then mate 2's). It is the
unit of work and of restart: its number, its reads and its vectors depend on the input and the request alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.batches import Batch, BatchRequest
from tasks.errors import InvalidReads
from tasks.landing import LandedFile, LandedSample
from tasks.object_store import ObjectStore
from tasks.reads.accounting import QualityAccounting
from tasks.reads.block import QuarantinedRecord, ReadBlock
from tasks.reads.duplicates import SeenSequences
from tasks.reads.quality import QualityFilter, mean_qualities
from tasks.reads.sources import sample_blocks, verified
from tasks.reads.windows import cut_windows

READS_SCHEMA = pa.schema(
    {
        "read_id": pa.string(),
        "name": pa.string(),
        "sample": pa.string(),
        "record": pa.int64(),
        "mate": pa.int8(),
        "offset": pa.int32(),
        "sequence": pa.string(),
        "length": pa.int32(),
        "mean_quality": pa.float32(),
    }
)
"""One row per window of a kept read (a short read is one window), and so per vector.

``read_id`` is ``<sample>:<record>[/<mate>][@<offset>]``, with the offset only where the read was cut; ``mate``
is 0 for reads that are no pairs; ``offset`` is where the window begins in the trimmed read, in bases.
"""


@dataclass(frozen=True)
class Part:
    """The reads kept of one part, and what became of the others.

    :param name: ``<sample>-<number>``; the stem of its shard.
    :param reads: columns of :data:`READS_SCHEMA`, a row per window.
    :param accounting: counts reads, cut or not.
    """

    name: str
    reads: pa.Table
    accounting: QualityAccounting
    quarantined: list[QuarantinedRecord]


@dataclass(frozen=True)
class SkippedPart:
    """A part that was not made, because it is committed already."""

    name: str
    records: int


def parts_of(
    store: ObjectStore, batch: Batch, request: BatchRequest, sample: LandedSample, *, skip: set[str]
) -> Iterator[Part | SkippedPart]:
    """Every part of a sample in order; those named in ``skip`` without the work.

    :raises InvalidReads: a file is missing or damaged, has another number of records than was landed, or the
        mates of a pair do not go together.
    :raises StorageError: a file does not have the SHA-256 that was landed, or cannot be had now.
    """
    quality = QualityFilter(
        trim_quality=request.trim_quality,
        min_length=request.min_length,
        min_mean_quality=request.min_mean_quality,
        max_n_fraction=request.max_n_fraction,
        adapters=(request.adapter, request.adapter_mate),
    )
    seen = SeenSequences() if request.remove_duplicates else None
    records = 0
    with ExitStack() as opened:
        files = [
            (file.key, verified(opened.enter_context(_landed(store, batch, file)), file.sha256, file.key))
            for file in sample.files
        ]
        blocks = sample_blocks(files, layout=sample.layout, quality_offset=sample.quality_offset)
        for number, mates in enumerate(blocks):
            name = f"{sample.name}-{number:05d}"
            slots = sum(block.slots for block in mates)
            records += slots
            duplicates = seen.repeated(mates) if seen else [None] * len(mates)
            if name in skip:
                yield SkippedPart(name, slots)
            else:
                yield _part(name, sample.name, mates, duplicates, quality, request)
    for file in sample.files:
        found = records // len(sample.files)
        if file.records is not None and file.records != found:
            raise InvalidReads(
                f"{file.key} holds {found:,} records, but {file.records:,} were landed: it was cut, perhaps "
                "at the end of a gzip member, or the manifest is of another file; land it again"
            )


def _landed(store: ObjectStore, batch: Batch, file: LandedFile) -> BinaryIO:
    uri = batch.landing / file.key
    found = store.head(uri)
    if found is None:
        raise InvalidReads(f"{uri} is named in the landing manifest, but is not there; land the batch again")
    if found.size_bytes != file.bytes:
        raise InvalidReads(
            f"{uri} has {found.size_bytes:,} bytes, but {file.bytes:,} were landed: it was cut or replaced; land "
            "the batch again"
        )
    return store.open(uri)


def _part(
    name: str,
    sample: str,
    mates: tuple[ReadBlock, ...],
    duplicates: tuple[np.ndarray, ...] | list[None],
    quality: QualityFilter,
    request: BatchRequest,
) -> Part:
    tables, accounting = [], QualityAccounting()
    for mate, (block, duplicate) in enumerate(zip(mates, duplicates, strict=True), start=1):
        filtered = quality.apply(block, mate=mate, duplicate=duplicate)
        accounting += QualityAccounting.of(block, filtered)
        windows, starts = cut_windows(
            filtered.kept, window_bases=request.window_bases, overlap_bases=request.window_overlap_bases
        )
        tables.append(_reads_table(windows, starts, sample, mate if len(mates) > 1 else 0))
    return Part(
        name=name,
        reads=pa.concat_tables(tables).combine_chunks(),
        accounting=accounting,
        quarantined=[record for block in mates for record in block.quarantined],
    )


def _reads_table(windows: ReadBlock, starts: np.ndarray, sample: str, mate: int) -> pa.Table:
    rows = len(windows)
    sequences = pa.LargeStringArray.from_buffers(
        rows, pa.py_buffer(np.ascontiguousarray(windows.offsets)), pa.py_buffer(windows.sequence)
    )
    columns: Mapping[str, pa.Array] = {
        "read_id": _read_ids(windows.record_numbers, starts, sample, mate),
        "name": _text(windows.names),
        "sample": pa.repeat(sample, rows),
        "record": pa.array(windows.record_numbers, pa.int64()),
        "mate": pa.repeat(pa.scalar(mate, pa.int8()), rows),
        "offset": pa.array(starts, pa.int32()),
        "sequence": sequences.cast(pa.string()),
        "length": pa.array(np.diff(windows.offsets), pa.int32()),
        "mean_quality": pa.array(mean_qualities(windows), pa.float32()),
    }
    return pa.table(columns, schema=READS_SCHEMA)


def _read_ids(records: np.ndarray, starts: np.ndarray, sample: str, mate: int) -> pa.Array:
    """See :data:`READS_SCHEMA`. A read was cut where it has more windows than one."""
    suffix = f"/{mate}" if mate else ""
    ids = pc.binary_join_element_wise(sample, pa.array(records).cast(pa.string()), ":")
    ids = pc.binary_join_element_wise(ids, suffix, "")
    same = records[1:] == records[:-1]
    cut = np.append(same, False) | np.insert(same, 0, False) if len(records) else np.zeros(0, dtype=bool)
    if not cut.any():
        return ids
    windows = pc.binary_join_element_wise(ids, pa.array(starts).cast(pa.string()), "@")
    return pc.if_else(pa.array(cut), windows, ids)


def _text(names: list[bytes]) -> pa.Array:
    """Names as strings; bytes that are not UTF-8 as ``\\x..``."""
    raw = pa.array(names, pa.binary())
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([name.decode("utf-8", "backslashreplace") for name in names], pa.string())
