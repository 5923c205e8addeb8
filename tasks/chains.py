"""The chains of a batch: where its reads lie along sequences that verified overlaps join, under their names."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpc_jobs.align_pairs import overlaps
from tasks import results
from tasks.batches import Batch
from tasks.errors import InvalidInput
from tasks.object_store import ObjectStore

PREFIX = "chains"
SCHEMA = pa.schema(
    [
        pa.field("read_id", pa.string(), False),
        pa.field("chain", pa.int64(), False),
        pa.field("offset", pa.int64(), False),
        pa.field("strand", pa.int8(), False),
    ]
)
"""A row for each read that is on a chain; the other columns as in :mod:`hpc_jobs.read_graph.chains`."""


def read_lengths(directory: Path, shards: Sequence[str]) -> np.ndarray:
    """Bases of every read, int64, in the order of the embedding store, from the staged files of its shards."""
    lengths = [np.empty(0, np.int64)]
    for name in shards:
        try:
            sequences = pq.read_table(directory / name, columns=["sequence"])["sequence"]
        except (OSError, KeyError, pa.ArrowException) as error:
            raise InvalidInput(
                f"{directory / name} has no readable sequences: {error}; stage the batch again"
            ) from error
        lengths.append(pc.binary_length(sequences).to_numpy().astype(np.int64))
    return np.concatenate(lengths)


def publish(
    objects: ObjectStore,
    batch: Batch,
    lengths: np.ndarray,
    overlaps_directory: Path,
    read_ids: pa.Array,
    details: dict[str, Any],
) -> results.ResultManifest:
    """Lay the reads out along their verified overlaps, and publish ``chains/`` of the batch.

    :param lengths: in bases, of every row of the embedding store; ``read_ids``: its names.
    :param details: what identifies the overlaps; the number of chains, of reads on them, and their N50 are added.
    """
    from hpc_jobs.read_graph.chains import ChainLimits, Overlaps, chains  # igraph: not where one only reads

    found = overlaps.read(overlaps_directory)
    columns = {name: found[name].to_numpy() for name in Overlaps.__dataclass_fields__}
    placed = chains(lengths, Overlaps(**columns), ChainLimits())
    spans = _spans(placed, lengths)
    named = pa.table([read_ids.take(placed["read"].combine_chunks()), *placed.columns[1:]], schema=SCHEMA)
    target = io.BytesIO()
    pq.write_table(named, target, compression="zstd")
    facts = {"chains": len(spans), "reads_on_chains": len(placed), "n50_bases": n50(spans)}
    return results.publish(
        objects, batch.results / PREFIX, {"chains.parquet": target.getvalue()}, details | facts
    )


def read(objects: ObjectStore, batch: Batch) -> pa.Table:
    """The published chains, a table of :data:`SCHEMA`; empty where the batch's pairs were not aligned."""
    manifest = results.find(objects, batch.results / PREFIX)
    bodies = (
        [results.fetch(objects, batch.results / PREFIX, file) for file in manifest.files] if manifest else []
    )
    return pa.concat_tables(
        [SCHEMA.empty_table(), *(pq.read_table(io.BytesIO(body), schema=SCHEMA) for body in bodies)]
    )


def _spans(placed: pa.Table, lengths: np.ndarray) -> np.ndarray:
    """Bases from the first to the last of each chain, int64."""
    chain = placed["chain"].to_numpy()
    spans = np.zeros(int(chain.max(initial=-1)) + 1, np.int64)
    np.maximum.at(spans, chain, placed["offset"].to_numpy() + lengths[placed["read"].to_numpy()])
    return spans


def n50(spans: np.ndarray) -> int:
    """The largest length such that chains of that length or more hold half of all bases; 0 without chains."""
    ordered = np.sort(spans)[::-1]
    if not len(ordered):
        return 0
    return int(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])
