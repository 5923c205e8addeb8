from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpc_jobs import neighbours
from hpc_jobs import store as embedding_store
from hpc_jobs.align_pairs import overlaps
from hpc_jobs.checked_file import sha256_of
from hpc_jobs.mpi_dna_seq.tiles import Best, Block, comparison
from hpc_jobs.read_graph import memory
from tasks import chains, graph, results
from tasks.batches import Batch
from tasks.errors import ConflictingResult, InvalidInput, StorageError
from tasks.object_store import ObjectStore

READS, K = 60, 15


@pytest.fixture
def batch(s3_root: str) -> Batch:
    return Batch(s3_root, "2026-11-20")


def three_groups() -> np.ndarray:
    """Unit vectors around three directions: 24, 20 and 16 reads."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, 16, dtype=np.float32)
    vectors = np.repeat(centres, [24, 20, 16], axis=0) + rng.normal(scale=0.1, size=(READS, 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def stage(folder: Path, batch: Batch, vectors: np.ndarray, *, k: int = K) -> dict[str, Path]:
    """An embedding store, published and staged, its reads of 100 bases, and its k-NN result."""
    where = {"store_directory": folder / "embeddings", "knn_directory": folder / "knn"}
    where["reads_directory"] = folder / "reads"
    ids = pa.array([f"ecoli:{row + 1}" for row in range(len(vectors))], pa.string())
    embedding_store.write_store(
        where["store_directory"], ids, vectors, encoder_uri="registry://k@v1", encoder_revision="r"
    )
    where["reads_directory"].mkdir(exist_ok=True)
    for shard in embedding_store.read_manifest(where["store_directory"]).shards:
        reads = pa.table({"sequence": ["A" * 100] * shard.rows}, pa.schema({"sequence": pa.string()}))
        pq.write_table(reads, where["reads_directory"] / shard.name)
    body = (where["store_directory"] / "manifest.json").read_bytes()
    ObjectStore().put_bytes(batch.results / "embeddings" / "manifest.json", body)
    compare(where, vectors, k=k)
    return where


def compare(where: dict[str, Path], vectors: np.ndarray, *, k: int) -> None:
    """What the kernel writes, from one process."""
    best = Best.empty(len(vectors), max(min(k, len(vectors) - 1), 0))
    if best.k:
        block = Block(0, np.ascontiguousarray(vectors), best)
        comparison(dim=vectors.shape[1], tile=64).within(block)
    directory = where["knn_directory"]
    directory.mkdir(exist_ok=True)
    part = neighbours.write_part(directory, 0, first_row=0, ids=best.ids, scores=best.scores)
    sha256 = sha256_of(where["store_directory"] / "manifest.json")
    neighbours.write_manifest(directory, neighbours.NeighbourManifest(len(vectors), k, sha256, (part,)))


def test_graph_and_clusters_are_published_under_the_names_of_the_reads(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path, batch, three_groups())
    summary = graph.collect(batch.data_uri, batch.batch_id, **where)
    assert (summary["status"], summary["reads"], summary["edges"]) == ("written", READS, READS * K)
    assert summary["clusters"] == 3

    store = ObjectStore()
    clusters = results.verify(store, batch.results / "clusters")
    members = pq.read_table(
        io.BytesIO(results.fetch(store, batch.results / "clusters", clusters.files[0]))
    ).to_pydict()
    assert members["cluster"] == [0] * 24 + [1] * 20 + [2] * 16
    assert members["read_id"][:2] == ["ecoli:1", "ecoli:2"]
    assert clusters.details["largest"] == 24

    published = results.verify(store, batch.results / "graph")
    assert published.details["encoder_uri"] == "registry://k@v1"
    edges = pq.read_table(io.BytesIO(results.fetch(store, batch.results / "graph", published.files[0])))
    assert edges.schema.equals(graph.GRAPH_SCHEMA)
    rows = neighbours.read(where["knn_directory"])
    assert edges["neighbour_id"].to_pylist() == [f"ecoli:{row + 1}" for row in rows["neighbour"].to_pylist()]

    checked = graph.verify_graph(batch.data_uri, batch.batch_id)
    assert {key: checked[key] for key in ("reads", "edges", "k", "clusters", "largest")} == {
        "reads": READS,
        "edges": READS * K,
        "k": K,
        "clusters": 3,
        "largest": 24,
    }
    first = np.asarray(rows["score"]).reshape(READS, K)[:, 0]
    assert checked["mean_top1_cosine"] == pytest.approx(first.mean(), abs=1e-6)


def test_a_published_graph_stays_and_another_is_refused(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path, batch, three_groups())
    graph.collect(batch.data_uri, batch.batch_id, **where)
    before = {info.uri.key: info.etag for info in ObjectStore().list(batch.results)}
    assert graph.collect(batch.data_uri, batch.batch_id, **where)["status"] == "unchanged"
    assert {info.uri.key: info.etag for info in ObjectStore().list(batch.results)} == before

    compare(where, three_groups(), k=K + 1)
    with pytest.raises(ConflictingResult, match="replace_results"):
        graph.collect(batch.data_uri, batch.batch_id, **where)


def test_a_collect_that_was_cut_short_is_completed_with_the_same_bytes(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path, batch, three_groups())
    graph.collect(batch.data_uri, batch.batch_id, **where)
    before = {info.uri.key: info.etag for info in ObjectStore().list(batch.results)}
    ObjectStore().delete(batch.results / "graph" / "manifest.json")
    assert graph.collect(batch.data_uri, batch.batch_id, **where)["status"] == "written"
    assert {info.uri.key: info.etag for info in ObjectStore().list(batch.results)} == before


def test_edges_are_cut_into_files_of_a_size(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "EDGES_PER_FILE", 200)
    graph.collect(batch.data_uri, batch.batch_id, **stage(tmp_path, batch, three_groups()))
    published = results.verify(ObjectStore(), batch.results / "graph")
    assert [file.name for file in published.files] == [f"graph-{number:05d}.parquet" for number in range(5)]
    assert graph.verify_graph(batch.data_uri, batch.batch_id)["edges"] == READS * K


@pytest.mark.parametrize(("reads", "edges"), [(0, 0), (1, 0), (3, 6)])
def test_small_batches(batch: Batch, tmp_path: Path, reads: int, edges: int) -> None:
    where = stage(tmp_path, batch, three_groups()[:reads])
    assert graph.collect(batch.data_uri, batch.batch_id, **where)["edges"] == edges
    assert graph.verify_graph(batch.data_uri, batch.batch_id)["edges"] == edges


def align(folder: Path, where: dict[str, Path], rows: list[tuple[int, int]], *, pairs: int) -> Path:
    """What the alignment writes where it finds these overlaps among so many pairs."""
    directory = folder / "overlaps"
    directory.mkdir(exist_ok=True)
    fields = {"similarity": 0.5, "strand": -1, "first_begin": 40, "first_end": 100, "second_begin": 40}
    fields |= {"second_end": 100, "length": 60, "identity": 0.96, "score": 102}
    path = directory / overlaps.part_name(0)
    listed = [{"first": first, "second": second, **fields} for first, second in rows]
    pq.write_table(pa.Table.from_pylist(listed, overlaps.SCHEMA), path)
    part = neighbours.Part(path.name, len(rows), path.stat().st_size, sha256_of(path))
    sha256s = [sha256_of(where[name] / "manifest.json") for name in ("store_directory", "knn_directory")]
    request = overlaps.Request(*sha256s, mutual=True, minimum_overlap=50, minimum_identity=0.9)
    overlaps.write_manifest(directory, overlaps.OverlapManifest(request, pairs, (part,)))
    return directory


def test_verified_overlaps_are_published_with_their_share(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path, batch, three_groups())
    directory = align(tmp_path, where, [(0, 3), (5, 2)], pairs=8)
    for status in ("written", "unchanged"):
        summary = graph.collect(batch.data_uri, batch.batch_id, **where, overlaps_directory=directory)
        assert (summary["status"], summary["overlaps"]) == (status, 2)
    store, prefix = ObjectStore(), batch.results / "overlaps"
    published = results.verify(store, prefix)
    assert published.details["share"] == 0.25
    table = pq.read_table(io.BytesIO(results.fetch(store, prefix, published.files[0])))
    first = table.to_pylist()[0]
    assert (first["read_id"], first["other_id"], first["strand"], first["length"]) == (
        "ecoli:1",
        "ecoli:4",
        -1,
        60,
    )
    assert graph.verify_graph(batch.data_uri, batch.batch_id)["overlap_share"] == 0.25

    assert summary["chains"] == 2
    placed = results.verify(store, batch.results / "chains")
    assert (placed.details["chains"], placed.details["reads_on_chains"], placed.details["n50_bases"]) == (
        2,
        4,
        140,
    )
    assert chains.read(store, batch).to_pylist()[:2] == [
        {"read_id": "ecoli:1", "chain": 0, "offset": 0, "strand": 1},
        {"read_id": "ecoli:4", "chain": 0, "offset": 40, "strand": -1},
    ]

    with pytest.raises(ConflictingResult, match="overlaps holds the result of another run"):
        again = align(tmp_path, where, [(0, 3)], pairs=8)
        graph.collect(batch.data_uri, batch.batch_id, **where, overlaps_directory=again)


def test_without_alignment_no_overlaps_are_told_of(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path, batch, three_groups())
    assert graph.collect(batch.data_uri, batch.batch_id, **where)["overlaps"] is None
    assert graph.verify_graph(batch.data_uri, batch.batch_id)["overlap_share"] is None


def test_the_alignment_of_another_result_is_refused(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path, batch, three_groups())
    directory = align(tmp_path, where, [(0, 3)], pairs=8)
    compare(where, three_groups(), k=K + 1)
    with pytest.raises(InvalidInput, match="overlaps of another k-NN result"):
        graph.collect(batch.data_uri, batch.batch_id, **where, overlaps_directory=directory)
    (directory / "manifest.json").unlink()
    with pytest.raises(InvalidInput, match="not aligned to the end"):
        graph.collect(batch.data_uri, batch.batch_id, **where, overlaps_directory=directory)
    assert results.find(ObjectStore(), batch.results / "graph") is None


def test_a_graph_that_does_not_fit_the_node_is_refused_and_not_published(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = stage(tmp_path, batch, three_groups())
    for free_bytes in (READS * K, 70 * READS * K):  # too little to read it, too little for communities
        monkeypatch.setattr(memory, "available_bytes", lambda free=free_bytes: free)
        with pytest.raises(InvalidInput, match=r"batch '2026-11-20': a graph of .* node with more memory"):
            graph.collect(batch.data_uri, batch.batch_id, **where)
    assert results.find(ObjectStore(), batch.results / "clusters") is None
    assert results.find(ObjectStore(), batch.results / "graph") is None


def test_results_of_different_stores_are_not_mixed(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path / "a", batch, three_groups())
    other = stage(tmp_path / "b", batch, three_groups()[::-1])
    with pytest.raises(InvalidInput, match="stage it again"):
        graph.collect(batch.data_uri, batch.batch_id, **where)
    with pytest.raises(InvalidInput, match="another store"):
        graph.collect(batch.data_uri, batch.batch_id, **{**other, "knn_directory": where["knn_directory"]})
    (other["knn_directory"] / "manifest.json").unlink()
    with pytest.raises(InvalidInput, match="not computed to its end"):
        graph.collect(batch.data_uri, batch.batch_id, **other)


def test_a_result_by_another_metric_is_refused(batch: Batch, tmp_path: Path) -> None:
    where = stage(tmp_path, batch, three_groups())
    found = neighbours.verify(where["knn_directory"])
    neighbours.write_manifest(where["knn_directory"], replace(found, metric="l2"))
    with pytest.raises(InvalidInput, match="is by l2"):
        graph.collect(batch.data_uri, batch.batch_id, **where)
    assert results.find(ObjectStore(), batch.results / "graph") is None


def test_verification_finds_what_does_not_add_up(batch: Batch, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="never finished"):
        graph.verify_graph(batch.data_uri, batch.batch_id)
    graph.collect(batch.data_uri, batch.batch_id, **stage(tmp_path, batch, three_groups()))
    store, prefix = ObjectStore(), batch.results / "graph"
    published = results.verify(store, prefix)
    body = results.fetch(store, prefix, published.files[0])
    edges = pq.read_table(io.BytesIO(body))

    def publish(table: pa.Table) -> None:
        target = io.BytesIO()
        pq.write_table(table, target)
        results.publish(store, prefix, {"graph-00000.parquet": target.getvalue()}, published.details)

    for table, message in (
        (edges.slice(1), "899 edges"),
        (edges.take(pa.array(np.r_[1, 0, 2:900])), "ranks"),
        (edges.take(pa.array(np.r_[K:900, 0:K])), "order of clusters"),
        (edges.set_column(1, "neighbour_id", edges["read_id"]), "its own neighbour"),
        (edges.set_column(1, "neighbour_id", pa.array(["nobody"] * 900)), "no cluster"),
        (edges.set_column(3, "cosine", pa.array(np.arange(900, dtype=np.float32))), "cosines"),
    ):
        publish(table)
        with pytest.raises(StorageError, match=message):
            graph.verify_graph(batch.data_uri, batch.batch_id)
    store.put_bytes(prefix / "graph-00000.parquet", body + b"\0")
    with pytest.raises(StorageError, match="SHA-256"):
        graph.verify_graph(batch.data_uri, batch.batch_id)


def test_the_command_ends_with_its_summary(
    batch: Batch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = stage(tmp_path, batch, three_groups())
    arguments = ["collect", "--store", str(where["store_directory"]), "--knn", str(where["knn_directory"])]
    arguments += ["--reads", str(where["reads_directory"])]
    arguments += ["--data-uri", batch.data_uri, "--batch-id", batch.batch_id]
    for status in ("written", "unchanged"):
        assert graph.main(arguments) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == status
    (where["knn_directory"] / "manifest.json").unlink()
    assert graph.main(arguments) == 1
    assert "not computed to its end" in capsys.readouterr().err
