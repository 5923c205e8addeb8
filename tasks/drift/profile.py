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
RANKS = 16
"""Neighbours of each read that a profile counts: with so many, up to six times as many reads are thinned well."""


@dataclass(frozen=True)
class Profile:
    """What is compared of one batch. A read that was cut into windows counts once for each window.

    :param measured_at: UTC, ISO 8601 to the second.
    :param encoder_revision: cosines are comparable between batches for which this is the same.
    :param k: neighbours per read; on it depends who is a mutual neighbour, and so every cluster.
    :param by_rank: reads by the cosine of their nearest neighbour, of the next one, and so on to :data:`RANKS`:
        200 counts each over :data:`COSINE_EDGES`. Of a single read there are none.
    :param alone: reads that none of their neighbours names back: each of them is a cluster by itself.
    :param clusters: of two or more reads.
    :param largest: reads of the largest cluster.
    """

    batch_id: str
    measured_at: str
    encoder_uri: str
    encoder_revision: str
    k: int
    reads: int
    by_rank: tuple[tuple[int, ...], ...]
    alone: int
    clusters: int
    largest: int

    def nearest(self, among: int | None = None) -> np.ndarray:
        """Shares of the reads by the cosine of their nearest neighbour: float64 (200,), of sum 1.

        :param among: what these shares would be, on average, if only so many of the reads had been sequenced. The
            nearest one that is left is the first that was kept, so it is known from the neighbours by rank; what
            is farther than the last rank (see :meth:`unseen`) counts as that.
        """
        kept = self._kept(among)
        weights = kept * (1 - kept) ** np.arange(len(self.by_rank))
        weights[-1] += 1 - weights.sum()
        shares: np.ndarray = weights @ np.array(self.by_rank) / self.reads
        return shares

    def unseen(self, among: int) -> float:
        """Share of the reads of which, among so many, no neighbour would be left that is counted here."""
        return float((1 - self._kept(among)) ** len(self.by_rank))

    def _kept(self, among: int | None) -> float:
        """The probability of another read to be one of so many."""
        return min(1.0, ((among or self.reads) - 1) / (self.reads - 1))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON writes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Profile:
        """Read what :meth:`to_json` gave."""
        return cls(**{**fields, "by_rank": tuple(map(tuple, fields["by_rank"]))})


def measure_profile(store: ObjectStore, batch: Batch) -> Profile:
    """The profile of a batch whose graph is published; one file of the graph at a time is in memory.

    :raises StorageError: the graph or the clusters are missing or damaged.
    """
    embeddings = StoreManifest.from_json(store.get_json(batch.results / "embeddings" / "manifest.json"))
    prefix = batch.results / "graph"
    graph, clusters = (_finished(store, batch, name) for name in ("graph", "clusters"))
    counts = np.zeros(
        (min(RANKS, graph.details["k"], graph.details["reads"] - 1), len(COSINE_EDGES) - 1), int
    )
    for file in graph.files:
        body = io.BytesIO(results.fetch(store, prefix, file))
        edges = pq.read_table(body, columns=["rank", "cosine"], filters=[("rank", "<=", len(counts))])
        rank = edges["rank"].to_numpy()
        # The cosine of a read and its copy may be a little above 1.
        cosine = np.clip(edges["cosine"].to_numpy(), -1, 1)
        for number in range(len(counts)):
            counts[number] += np.histogram(cosine[rank == number + 1], COSINE_EDGES)[0]
    alone = clusters.details["singletons"]
    return Profile(
        batch_id=batch.batch_id,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        encoder_uri=embeddings.encoder_uri,
        encoder_revision=embeddings.encoder_revision,
        k=graph.details["k"],
        reads=graph.details["reads"],
        by_rank=tuple(map(tuple, counts.tolist())),
        alone=alone,
        clusters=clusters.details["clusters"] - alone,
        largest=clusters.details["largest"],
    )


def _finished(store: ObjectStore, batch: Batch, name: str) -> results.ResultManifest:
    manifest = results.find(store, batch.results / name)
    if manifest is None:
        raise StorageError(f"{batch.results / name} has no manifest.json: clear the task that writes it")
    return manifest
