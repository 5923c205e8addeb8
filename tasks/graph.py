"""From the k-NN result on the shared file system to the published graph and clusters of a batch.

``python -m tasks.graph collect --store DIR --reads DIR --knn DIR --overlaps DIR --data-uri s3://… --batch-id …``,
on one Slurm node. ``graph/`` names reads instead of rows; ``clusters/`` holds the communities of the mutual
neighbours, ``overlaps/`` those of them that alignment confirmed, ``chains/`` the reads that these join, in order.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpc_jobs import neighbours
from hpc_jobs import store as embedding_store
from hpc_jobs.checked_file import sha256_of
from hpc_jobs.neighbours import NeighboursError
from hpc_jobs.read_graph import memory
from hpc_jobs.store import StoreError
from tasks import chains, overlaps, results
from tasks.batches import Batch
from tasks.errors import ConflictingResult, InvalidInput, StorageError, StrandloopError
from tasks.object_store import ObjectStore

EDGES_PER_FILE = 2_000_000
GRAPH_SCHEMA = pa.schema(
    [
        pa.field("read_id", pa.string(), False),
        pa.field("neighbour_id", pa.string(), False),
        pa.field("rank", pa.int32(), False),
        pa.field("cosine", pa.float32(), False),
    ]
)
CLUSTERS_SCHEMA = pa.schema([pa.field("read_id", pa.string(), False), pa.field("cluster", pa.int32(), False)])


def collect(
    data_uri: str,
    batch_id: str,
    *,
    store_directory: Path,
    reads_directory: Path,
    knn_directory: Path,
    overlaps_directory: Path | None = None,
) -> dict[str, Any]:
    """Publish ``graph/``, ``clusters/``, ``overlaps/`` and ``chains/``; what stands there for this result stays.

    Needs the whole graph in memory: :mod:`hpc_jobs.read_graph.memory` says how much.

    :param reads_directory: the staged reads; their lengths are needed for chains.
    :param overlaps_directory: the alignment of its pairs; without one, no ``overlaps/`` and ``chains/``.
    :return: ``status``, reads, edges, k, encoder_uri, clusters, and the numbers of overlaps and chains or None.
    :raises InvalidInput: the k-NN result is unfinished, of another store than this batch's, or too large for this
        node; or the alignment is unfinished, or of another result.
    :raises ConflictingResult: the graph of another k-NN result is published already.
    """
    objects, batch = ObjectStore(), Batch(data_uri, batch_id)
    try:
        manifest = embedding_store.read_manifest(store_directory)
        found = neighbours.verify(knn_directory)
    except (StoreError, NeighboursError) as error:
        raise InvalidInput(str(error)) from error
    _check_same_store(objects, batch, store_directory, found)
    aligned = None
    if overlaps_directory:
        aligned = overlaps.verify_local(
            overlaps_directory, store_sha256=found.store_sha256, knn_directory=knn_directory
        )

    details = {
        "reads": manifest.rows,
        "edges": found.edges,
        "k": found.k,
        "encoder_uri": manifest.encoder_uri,
        "store_sha256": found.store_sha256,
    }
    graph = _published(objects, batch, "graph", details)
    clusters = _published(objects, batch, "clusters", {"store_sha256": found.store_sha256, "k": found.k})
    overlapping = chained = None
    if aligned:
        overlapping = _published(objects, batch, overlaps.PREFIX, overlaps.details(aligned))
        chained = _published(objects, batch, chains.PREFIX, overlaps.details(aligned))
    unchanged = bool(graph and clusters and (not aligned or (overlapping and chained)))
    try:
        if not unchanged:
            memory.check_knn(found.edges)
            table = neighbours.read(knn_directory)
            read_ids = embedding_store.read_ids(store_directory, 0, manifest.rows)
        if not clusters:
            clusters = _publish_clusters(objects, batch, table, read_ids, found)
    except memory.GraphTooLarge as error:
        raise InvalidInput(f"batch {batch_id!r}: {error}") from error
    if not graph:
        results.publish(objects, batch.results / "graph", _graph_files(table, read_ids), details)
    if aligned and overlaps_directory and not overlapping:
        overlaps.publish(objects, batch, overlaps_directory, read_ids, aligned)
    if aligned and overlaps_directory and not chained:
        lengths = chains.read_lengths(reads_directory, [shard.name for shard in manifest.shards])
        chained = chains.publish(
            objects, batch, lengths, overlaps_directory, read_ids, overlaps.details(aligned)
        )
    return {
        "status": "unchanged" if unchanged else "written",
        **details,
        "clusters": clusters.details["clusters"],
        "overlaps": aligned.overlaps if aligned else None,
        "chains": chained.details["chains"] if chained else None,
    }


def verify_graph(data_uri: str, batch_id: str) -> dict[str, Any]:
    """Read the published graph and clusters back, check them, and say what they hold.

    Checked: every file's SHA-256; one cluster for each read of the embedding store; the neighbours of each
    read, min(k, reads - 1) of them, in order of rank and of cosine.

    :return: ``status`` (always ``unchanged``), reads, edges, k, clusters, largest, mean_top1_cosine
        (None without edges), and overlap_share: of the mutual edges, those that alignment confirmed (None where
        none was aligned).
    :raises StorageError: something is missing, damaged or does not add up.
    """
    objects, batch = ObjectStore(), Batch(data_uri, batch_id)
    graph, edges = _fetch_all(objects, batch, "graph", GRAPH_SCHEMA)
    clusters, members = _fetch_all(objects, batch, "clusters", CLUSTERS_SCHEMA)
    reads, k = graph.details["reads"], graph.details["k"]
    problem = _graph_problem(edges, members, reads=reads, k=min(k, max(reads - 1, 0)))
    if problem:
        raise StorageError(f"{batch.results / 'graph'}: {problem}; delete graph/ and clusters/ and run again")
    overlapping = None
    if results.find(objects, batch.results / overlaps.PREFIX):
        overlapping = results.verify(objects, batch.results / overlaps.PREFIX).details
        if overlapping["store_sha256"] != graph.details["store_sha256"]:
            raise StorageError(f"{batch.results / overlaps.PREFIX} is of another embedding store than graph/")
    first = edges.filter(pc.equal(edges["rank"], 1))["cosine"]
    return {
        "status": "unchanged",
        "reads": reads,
        "edges": len(edges),
        "k": k,
        "clusters": clusters.details["clusters"],
        "largest": clusters.details["largest"],
        "mean_top1_cosine": round(float(pc.mean(first).as_py()), 6) if len(first) else None,
        "overlap_share": overlapping and overlapping["share"],
    }


def _check_same_store(
    objects: ObjectStore, batch: Batch, store_directory: Path, found: neighbours.NeighbourManifest
) -> None:
    """One embedding store everywhere: the batch's in S3, its copy here, and the one that was compared by cosine."""
    path = store_directory / embedding_store.MANIFEST
    try:
        published = objects.get_bytes(batch.results / "embeddings" / embedding_store.MANIFEST)
    except FileNotFoundError as error:
        raise InvalidInput(f"batch {batch.batch_id!r} has no finished embeddings in S3") from error
    if published != path.read_bytes():
        raise InvalidInput(
            f"{store_directory} is not a copy of {batch.results / 'embeddings'}; stage it again"
        )
    if found.store_sha256 != sha256_of(path):
        raise InvalidInput(
            f"the k-NN result compared another store than {store_directory}; run the similarity job again"
        )
    if found.metric != "cosine":
        raise InvalidInput(
            f"the k-NN result is by {found.metric}, and a batch's graph is of cosines; run the similarity job "
            "again without --metric"
        )


def _published(
    objects: ObjectStore, batch: Batch, name: str, expected: dict[str, Any]
) -> results.ResultManifest | None:
    """The finished result, if it is of this k-NN result; None where there is none."""
    manifest = results.find(objects, batch.results / name)
    if manifest is None:
        return None
    other = {key for key, value in expected.items() if manifest.details.get(key) != value}
    if other:
        raise ConflictingResult(
            f"{batch.results / name} holds the result of another run, with another {', '.join(sorted(other))}; "
            "set the parameter replace_results to compute the batch anew"
        )
    return manifest


def _publish_clusters(
    objects: ObjectStore,
    batch: Batch,
    table: pa.Table,
    read_ids: pa.Array,
    found: neighbours.NeighbourManifest,
) -> results.ResultManifest:
    from hpc_jobs.read_graph.communities import (
        METHOD,
        find_communities,
    )  # igraph: not where one only verifies
    from hpc_jobs.read_graph.mutual import mutual_edges

    edges = mutual_edges(*(table[name].to_numpy() for name in ("query", "neighbour", "score")))
    communities = find_communities(found.rows, edges)
    members = pa.table([read_ids, _array(communities.labels)], schema=CLUSTERS_SCHEMA)
    details = {
        "clusters": len(communities.sizes),
        "largest": int(communities.sizes[0]) if len(communities.sizes) else 0,
        "singletons": int(np.count_nonzero(communities.sizes == 1)),
        "components": communities.components,
        "mutual_edges": len(edges.first),
        "modularity": round(communities.modularity, 6),
        "method": METHOD,
        "k": found.k,
        "store_sha256": found.store_sha256,
    }
    return results.publish(
        objects, batch.results / "clusters", {"clusters.parquet": _parquet(members)}, details
    )


def _graph_files(table: pa.Table, read_ids: pa.Array) -> dict[str, bytes]:
    """The edges with names instead of rows, as files of :data:`EDGES_PER_FILE`; at least one."""
    files = {}
    for number, start in enumerate(range(0, max(len(table), 1), EDGES_PER_FILE)):
        part = table.slice(start, EDGES_PER_FILE).combine_chunks()
        columns = [read_ids.take(part[name].combine_chunks()) for name in ("query", "neighbour")]
        named = pa.table([*columns, part["rank"], part["score"]], schema=GRAPH_SCHEMA)
        files[f"graph-{number:05d}.parquet"] = _parquet(named)
    return files


def _graph_problem(edges: pa.Table, members: pa.Table, *, reads: int, k: int) -> str | None:
    """What does not add up in a published graph, or None."""
    if len(members) != reads or pc.count_distinct(members["read_id"]).as_py() != reads:
        return f"clusters/ names {len(members)} reads, the graph has {reads}"
    if len(edges) != reads * k:
        return f"{len(edges)} edges, but {reads} reads with {k} neighbours each have {reads * k}"
    if not len(edges):
        return None
    number = {
        name: pc.index_in(edges[name], members["read_id"].combine_chunks())
        for name in ("read_id", "neighbour_id")
    }
    if any(column.null_count for column in number.values()):
        return "an edge names a read that is in no cluster"
    query = number["read_id"].to_numpy().reshape(reads, k)
    if not (query == np.arange(reads)[:, None]).all():
        return "the edges do not go through the reads in the order of clusters/"
    if (number["neighbour_id"].to_numpy().reshape(reads, k) == query).any():
        return "a read is its own neighbour"
    cosine = edges["cosine"].to_numpy().reshape(reads, k)
    if not (edges["rank"].to_numpy().reshape(reads, k) == np.arange(1, k + 1)).all():
        return "the ranks of a read are not 1, 2, …"
    if not (np.diff(cosine, axis=1) <= 0).all() or not (np.abs(cosine) <= 1.01).all():
        return "cosines are not between -1 and 1, or not in the order of rank"
    return None


def _fetch_all(
    objects: ObjectStore, batch: Batch, name: str, schema: pa.Schema
) -> tuple[results.ResultManifest, pa.Table]:
    prefix = batch.results / name
    manifest = results.find(objects, prefix)
    if manifest is None:
        raise StorageError(f"{prefix} has no manifest.json: the graph of this batch was never finished")
    bodies = (results.fetch(objects, prefix, file) for file in manifest.files)
    return manifest, pa.concat_tables([pq.read_table(io.BytesIO(body), schema=schema) for body in bodies])


def _parquet(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target, compression="zstd")
    return target.getvalue()


def _array(values: np.ndarray) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])


def main(arguments: list[str] | None = None) -> int:
    """``collect``: prints the summary as one JSON line; the exit status is 1 where it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m tasks.graph", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("collect", help="publish the graph and the clusters of a batch")
    command.add_argument("--store", type=Path, required=True, help="directory of the staged embedding store")
    command.add_argument("--reads", type=Path, required=True, help="directory of the staged reads")
    command.add_argument("--knn", type=Path, required=True, help="directory of the k-NN result")
    command.add_argument("--overlaps", help="directory of the aligned pairs; none if empty")
    command.add_argument("--data-uri", required=True)
    command.add_argument("--batch-id", required=True)
    options = parser.parse_args(arguments)
    try:
        summary = collect(
            options.data_uri,
            options.batch_id,
            store_directory=options.store,
            reads_directory=options.reads,
            knn_directory=options.knn,
            overlaps_directory=Path(options.overlaps) if options.overlaps else None,
        )
    except StrandloopError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if summary["status"] == "unchanged":
        print(f"unchanged: the graph of batch {options.batch_id} is already published")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
