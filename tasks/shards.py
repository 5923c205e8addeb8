"""Commits: how the vectors and reads of a part become part of a batch's results, once.

A part is committed when its record ``embeddings/parts/<name>.json`` stands. Objects are only ever created,
never replaced: of two runs at once both end with the same bytes. Plain functions that know nothing of Ray.
"""

from __future__ import annotations

import hashlib
import io
import json
import traceback
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hpc_jobs.store import Shard, is_unit, shard_bytes
from tasks.batches import Batch
from tasks.encoders.protocol import Encoder
from tasks.errors import InvalidEncoder, StrandloopError
from tasks.object_store import ObjectStore, ObjectUri
from tasks.parts import Part
from tasks.reads.accounting import QualityAccounting
from tasks.reads.block import QuarantinedRecord
from tasks.results import ResultFile


class EncodingFailed(StrandloopError):
    """The encoder raised an error of its own on the reads of a part."""


@dataclass(frozen=True)
class Commit:
    """The record of a committed part; ``shard`` and ``reads`` are None where it keeps no read."""

    name: str
    shard: Shard | None
    reads: ResultFile | None
    accounting: QualityAccounting
    quarantined: list[QuarantinedRecord]

    @property
    def vectors(self) -> int:
        """Rows of its shard."""
        return self.shard.rows if self.shard else 0

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


def committed(store: ObjectStore, batch: Batch) -> set[str]:
    """Names of the parts that are committed."""
    return {info.uri.name.removesuffix(".json") for info in store.list(_parts(batch))}


def read_commit(store: ObjectStore, batch: Batch, name: str) -> Commit:
    """The commit record of a part."""
    return Commit.from_json(store.get_json(_parts(batch) / f"{name}.json"))


def encode_part(part: Part, encoder: Encoder, dtype: str) -> np.ndarray:
    """Vectors of the part's reads, float32 (rows, dim).

    :param dtype: how they will be stored; as that they must have length 1 or be zero.
    :raises InvalidEncoder: they do not, or are not finite.
    :raises EncodingFailed: the encoder raised something that is no error of ours.
    """
    try:
        vectors = encoder.encode(part.reads)
    except StrandloopError:
        raise
    except (
        Exception
    ) as error:  # a library of the encoder's, or the hardware: people need to know on which part
        where = "".join(traceback.format_exception(error, limit=-3)).rstrip()
        raise EncodingFailed(
            f"{encoder.uri} failed on the {part.reads.num_rows:,} reads of part {part.name}; nothing of the batch "
            f"is published, the other parts are kept for the next try:\n{where}"
        ) from error
    wrong = ~(np.isfinite(vectors).all(axis=1) & is_unit(np.nan_to_num(vectors), dtype))
    if wrong.any():
        raise InvalidEncoder(
            f"{encoder.uri} gives vectors that are not of length 1: {wrong.sum():,} of the {len(vectors):,} of "
            f"{part.name}, the first for its row {int(wrong.argmax())}; retrain it or name another encoder"
        )
    return vectors


def commit_part(store: ObjectStore, batch: Batch, part: Part, vectors: np.ndarray, *, dtype: str) -> Commit:
    """Write a part's objects, then its commit record; gives the record that stands, ours or another run's.

    :param vectors: float32 (reads of the part, dim); without any there is only the record.
    :raises StorageError: the object store failed.
    """
    shard = reads = None
    if part.reads.num_rows:
        name = f"{part.name}.parquet"
        body = shard_bytes(part.reads["read_id"].combine_chunks(), vectors, dtype)
        size, sha256 = _create(store, batch.results / "embeddings" / name, body)
        shard = Shard(name, part.reads.num_rows, size, sha256)
        size, sha256 = _create(store, batch.results / "reads" / name, _reads_bytes(part.reads))
        reads = ResultFile(name, size, sha256)
    commit = Commit(part.name, shard, reads, part.accounting, part.quarantined)
    body = json.dumps(commit.to_json(), sort_keys=True, separators=(",", ":")).encode() + b"\n"
    if store.put_bytes(_parts(batch) / f"{part.name}.json", body, if_absent=True):
        return commit
    return read_commit(store, batch, part.name)


def _reads_bytes(reads: pa.Table) -> bytes:
    target = io.BytesIO()
    # Names, ids and sequences hardly ever repeat: a dictionary of them costs time and saves nothing.
    pq.write_table(reads, target, compression="zstd", use_dictionary=["sample", "mate", "offset", "length"])
    return target.getvalue()


def _create(store: ObjectStore, uri: ObjectUri, body: bytes) -> tuple[int, str]:
    """Write an object that is not there yet; size and SHA-256 of what stands there, ours or an earlier run's."""
    stands = body if store.put_bytes(uri, body, if_absent=True) else store.get_bytes(uri)
    return len(stands), hashlib.sha256(stands).hexdigest()


def _parts(batch: Batch) -> ObjectUri:
    return batch.results / "embeddings" / "parts"
