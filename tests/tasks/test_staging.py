from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hpc_jobs import store as embedding_store
from tasks import results
from tasks.errors import InvalidInput, StorageError
from tasks.object_store import ObjectStore, ObjectUri
from tasks.staging import main, pull, pull_reads


@pytest.fixture
def objects(s3_root: str) -> ObjectStore:
    return ObjectStore()


@pytest.fixture
def embeddings(s3_root: str) -> ObjectUri:
    return ObjectUri.parse(s3_root) / "batches" / "b1" / "embeddings"


def publish(objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path, *, rows: int = 50) -> np.ndarray:
    """Write a store of three shards to S3; gives its vectors."""
    vectors = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
    ids = pa.array([f"ecoli:{row + 1}" for row in range(rows)])
    local = tmp_path / f"published-{rows}"
    embedding_store.write_store(
        local, ids, vectors, encoder_uri="e", encoder_revision="r", shard_rows=rows // 3 + 1
    )
    for path in local.iterdir():
        objects.put_bytes(embeddings / path.name, path.read_bytes())
    return vectors


def test_a_store_is_copied_once(objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path) -> None:
    vectors = publish(objects, embeddings, tmp_path)
    directory = tmp_path / "fsx" / "embeddings"
    summary = pull(objects, embeddings, directory)
    assert (summary["status"], summary["rows"], summary["fetched"]) == ("written", 50, 3)
    embedding_store.verify(directory)
    np.testing.assert_array_equal(embedding_store.read_vectors(directory, 0, 50), vectors)
    assert pull(objects, embeddings, directory)["status"] == "unchanged"
    assert len(list(directory.iterdir())) == 4


def test_a_partial_copy_is_completed(objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path) -> None:
    publish(objects, embeddings, tmp_path)
    pull(objects, embeddings, tmp_path / "copy")
    first, second, third = sorted((tmp_path / "copy").glob("*.parquet"))
    body = bytearray(first.read_bytes())
    body[50] ^= 1
    first.write_bytes(body)
    second.unlink()
    (tmp_path / "copy" / f".{third.name}.part").write_bytes(b"left by a pull that was killed")
    assert pull(objects, embeddings, tmp_path / "copy")["fetched"] == 2
    embedding_store.verify(tmp_path / "copy")
    assert len(list((tmp_path / "copy").iterdir())) == 4


def test_another_store_replaces_the_old_copy(
    objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path
) -> None:
    publish(objects, embeddings, tmp_path)
    directory = tmp_path / "copy"
    pull(objects, embeddings, directory)
    (directory / "former.parquet").write_bytes(b"of an older store")
    vectors = publish(objects, embeddings, tmp_path, rows=20)
    assert pull(objects, embeddings, directory)["status"] == "written"
    np.testing.assert_array_equal(embedding_store.read_vectors(directory, 0, 20), vectors)
    assert not (directory / "former.parquet").exists()


def test_a_damaged_object_leaves_no_finished_copy(
    objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path
) -> None:
    publish(objects, embeddings, tmp_path)
    objects.put_bytes(embeddings / "part-00001.parquet", b"something else")
    with pytest.raises(StorageError, match=r"part-00001\.parquet does not have the SHA-256"):
        pull(objects, embeddings, tmp_path / "copy")
    objects.delete(embeddings / "part-00001.parquet")
    with pytest.raises(StorageError, match=r"part-00001\.parquet is missing"):
        pull(objects, embeddings, tmp_path / "copy")
    assert not (tmp_path / "copy" / "manifest.json").exists()


def test_an_unfinished_store_is_refused(
    objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidInput, match="not embedded to the end"):
        pull(objects, embeddings, tmp_path / "copy")
    assert main(["pull", "--embeddings", str(embeddings), "--to", str(tmp_path / "copy")]) == 1
    assert "not embedded to the end" in capsys.readouterr().err
    objects.put_json(embeddings / "manifest.json", {"format": "other"})
    with pytest.raises(StorageError, match="not complete"):
        pull(objects, embeddings, tmp_path / "copy")


def test_the_command_ends_with_its_summary(
    objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(objects, embeddings, tmp_path)
    for status in ("written", "unchanged"):
        assert main(["pull", "--embeddings", str(embeddings), "--to", str(tmp_path / "copy")]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["status"] == status


def test_reads_come_with_their_vectors(
    objects: ObjectStore, embeddings: ObjectUri, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(objects, embeddings, tmp_path)
    prefix = ObjectUri.parse(str(embeddings).replace("/embeddings", "/reads"))
    bodies = {"ecoli-00000.parquet": b"reads", "ecoli-00001.parquet": b"more reads"}
    copy = tmp_path / "reads"
    command = ["pull", "--embeddings", str(embeddings), "--to", str(tmp_path / "copy")]
    command += ["--reads", str(prefix), "--reads-to", str(copy)]
    assert main(command) == 1
    assert "/reads has no manifest.json" in capsys.readouterr().err

    results.publish(objects, prefix, bodies, {})
    for status, fetched in (("written", 2), ("unchanged", 0)):
        assert main(command) == 0
        told = json.loads(capsys.readouterr().out.splitlines()[-1])["reads"]
        assert (told["status"], told["files"], told["fetched"]) == (status, 2, fetched)
        assert {path.name: path.read_bytes() for path in copy.glob("*.parquet")} == bodies

    (copy / "ecoli-00000.parquet").write_bytes(b"half")
    assert pull_reads(objects, prefix, copy)["fetched"] == 1
    assert (copy / "ecoli-00000.parquet").read_bytes() == b"reads"
    objects.put_bytes(prefix / "ecoli-00001.parquet", b"something else")
    (copy / "ecoli-00001.parquet").unlink()
    with pytest.raises(StorageError, match=r"ecoli-00001\.parquet does not have the SHA-256"):
        pull_reads(objects, prefix, copy)
    assert not (copy / "manifest.json").exists()


def test_reads_without_a_place_for_them_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pull", "--embeddings", "s3://b/e", "--to", "x", "--reads", "s3://b/r"])
    assert "--reads and --reads-to go together" in capsys.readouterr().err
