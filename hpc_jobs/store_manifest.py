"""The manifest of an embedding store, and what is wrong with one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_jobs.vector_dtypes import DTYPES

MANIFEST = "manifest.json"
FORMAT = "strandloop-embeddings"
FORMAT_VERSION = 1
ID_COLUMN = "read_id"


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

    :param dtype: one of :data:`hpc_jobs.vector_dtypes.DTYPES`.
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
        if manifest.dtype not in DTYPES or manifest.dim < 1:
            raise StoreError(
                f"vectors of {manifest.dim} x {manifest.dtype} cannot be read; {', '.join(DTYPES)} can"
            )
        for shard in manifest.shards:
            if Path(shard.name).name != shard.name or shard.name.startswith("."):
                raise StoreError(f"{shard.name!r} is not a file name that a shard may have")
        return manifest
