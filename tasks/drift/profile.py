"""The profile of a batch: the few numbers that are compared from batch to batch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from hpc_jobs.store import StoreManifest
from tasks import results
from tasks.batches import Batch
from tasks.errors import StorageError
from tasks.object_store import ObjectStore

COSINE_EDGES = np.linspace(-1, 1, 201)
"""Bins of 0.01."""


@dataclass(frozen=True)
class Profile:
    """What is compared of one batch. A read that was cut into windows counts once for each window.

    :param measured_at: UTC, ISO 8601 to the second.
    :param encoder_revision: cosines are comparable between batches for which this is the same.
    :param k: neighbours per read; on it depends who is a mutual neighbour, and so every cluster.
    :param nearest: reads by the cosine of their nearest neighbour, 200 counts over :data:`COSINE_EDGES`.
    :param alone: reads that no other read names back as neighbour: each of them is a cluster by itself.
    :param clusters: of two or more reads.
    :param largest: reads of the largest cluster.
    """

    batch_id: str
    measured_at: str
    encoder_uri: str
    encoder_revision: str
    k: int
    reads: int
    nearest: tuple[int, ...]
    alone: int
    clusters: int
    largest: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Profile:
        """Read what :meth:`to_json` gave."""
        return cls(**{**fields, "nearest": tuple(fields["nearest"])})


def measure_profile(store: ObjectStore, batch: Batch) -> Profile:
    """The profile of a batch whose graph is published; one file of the graph at a time is in memory.

    :raises StorageError: the graph or the clusters are missing or damaged.
    """
    embeddings = StoreManifest.from_json(store.get_json(batch.results / "embeddings" / "manifest.json"))
    prefix = batch.results / "graph"
    graph, clusters = (_finished(store, batch, name) for name in ("graph", "clusters"))
    nearest = np.zeros(len(COSINE_EDGES) - 1, np.int64)
    for file in graph.files:
        body = io.BytesIO(results.fetch(store, prefix, file))
        first = pq.read_table(body, columns=["cosine"], filters=[("rank", "=", 1)])
        # The cosine of a read and its copy may be a little above 1.
        nearest += np.histogram(np.clip(first["cosine"].to_numpy(), -1, 1), COSINE_EDGES)[0]
    alone = clusters.details["singletons"]
    return Profile(
        batch_id=batch.batch_id,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        encoder_uri=embeddings.encoder_uri,
        encoder_revision=embeddings.encoder_revision,
        k=graph.details["k"],
        reads=graph.details["reads"],
        nearest=tuple(nearest.tolist()),
        alone=alone,
        clusters=clusters.details["clusters"] - alone,
        largest=clusters.details["largest"],
    )


def _finished(store: ObjectStore, batch: Batch, name: str) -> results.ResultManifest:
    manifest = results.find(store, batch.results / name)
    if manifest is None:
        raise StorageError(f"{batch.results / name} has no manifest.json: clear the task that writes it")
    return manifest
