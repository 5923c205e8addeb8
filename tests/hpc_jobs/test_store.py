from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpc_jobs import store
from hpc_jobs.store import StoreError, StoreManifest


def unit_vectors(rows: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write(directory: Path, vectors: np.ndarray, *, shard_rows: int = 100) -> StoreManifest:
    ids = pa.array([f"ecoli:{row + 1}" for row in range(len(vectors))], pa.string())
    return store.write_store(
        directory,
        ids,
        vectors,
        encoder_uri="registry://kmer-mlp@v1-00000000",
        encoder_revision="ab" * 32,
        shard_rows=shard_rows,
    )


def test_any_slice_of_a_store_reads_back_across_shards_and_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP_ROWS", 16)
    vectors = unit_vectors(250, 12)
    manifest = write(tmp_path, vectors)
    assert (manifest.rows, manifest.dim, manifest.normalised, len(manifest.shards)) == (250, 12, True, 3)
    assert store.verify(tmp_path) == manifest == StoreManifest.from_json(manifest.to_json())
    for start, stop in ((0, 250), (0, 0), (99, 101), (15, 17), (100, 200), (249, 250), (37, 222)):
        np.testing.assert_array_equal(store.read_vectors(tmp_path, start, stop), vectors[start:stop])
        expected = [f"ecoli:{row + 1}" for row in range(start, stop)]
        assert store.read_ids(tmp_path, start, stop).to_pylist() == expected
    with pytest.raises(StoreError, match="250 rows"):
        store.read_vectors(tmp_path, 0, 251)


def test_a_shard_is_plain_uncompressed_parquet_and_the_same_every_time(tmp_path: Path) -> None:
    ids, vectors = pa.array(["a", "b"]), unit_vectors(2, 3)
    body = store.shard_bytes(ids, vectors)
    assert body == store.shard_bytes(ids, vectors)
    file = pq.ParquetFile(pa.BufferReader(body))
    column = file.metadata.row_group(0).column(1)
    assert (column.compression, column.has_dictionary_page) == ("UNCOMPRESSED", False)
    assert file.schema_arrow.field("vector").type == pa.binary(12)
    assert file.schema_arrow.metadata[b"dim"] == b"3"


def test_an_empty_store_is_a_store(tmp_path: Path) -> None:
    manifest = write(tmp_path, np.empty((0, 8), np.float32))
    assert (manifest.rows, manifest.dim, manifest.shards) == (0, 8, ())
    assert store.read_vectors(tmp_path, 0, 0).shape == (0, 8)
    assert store.read_ids(tmp_path, 0, 0).to_pylist() == []


def test_whether_vectors_are_normalised_is_measured(tmp_path: Path) -> None:
    with_zero = unit_vectors(5, 4)
    with_zero[3] = 0
    assert write(tmp_path / "unit", with_zero).normalised
    assert not write(tmp_path / "long", 2 * with_zero).normalised


def test_damage_is_found_and_all_of_it_is_named(tmp_path: Path) -> None:
    manifest = write(tmp_path, unit_vectors(250, 12))
    first, second, third = (tmp_path / shard.name for shard in manifest.shards)
    body = bytearray(first.read_bytes())
    body[len(body) // 2] ^= 1
    first.write_bytes(body)
    second.write_bytes(second.read_bytes()[:-1])
    third.unlink()
    with pytest.raises(StoreError) as caught:
        store.verify(tmp_path)
    assert f"{first.name} does not have the SHA-256" in str(caught.value)
    assert f"{second.name} has " in str(caught.value)
    assert f"{third.name} is missing" in str(caught.value)


def test_a_store_without_its_manifest_is_none(tmp_path: Path) -> None:
    write(tmp_path, unit_vectors(3, 2))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StoreError, match="never finished"):
        store.read_vectors(tmp_path, 0, 3)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rows", 4, "add up to 3"),
        ("format_version", 2, "version 2"),
        ("dtype", "float16", "float16"),
        ("encoder", {}, "not complete"),
        ("shards", [{"name": "../x", "rows": 3, "bytes": 1, "sha256": ""}], "not a file name"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    write(tmp_path, unit_vectors(3, 2))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(StoreError, match=message):
        store.read_manifest(tmp_path)


def test_a_finished_store_is_not_written_over(tmp_path: Path) -> None:
    write(tmp_path, unit_vectors(3, 2))
    with pytest.raises(StoreError, match="already holds a store"):
        write(tmp_path, unit_vectors(3, 2))


def test_command_line_goes_from_npy_to_npy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array, directory, back = tmp_path / "x.npy", tmp_path / "store", tmp_path / "back.npy"
    np.save(array, unit_vectors(20, 6))
    assert store.main(["from-npy", str(array), str(directory)]) == 0
    assert store.main(["to-npy", str(directory), str(back)]) == 0
    np.testing.assert_array_equal(np.load(back), np.load(array))
    assert store.main(["info", str(directory)]) == 0
    assert store.main(["verify", str(directory)]) == 0
    assert "20 x 6 float32 in 1 shards, normalised" in capsys.readouterr().out
    (directory / "part-00000.parquet").unlink()
    assert store.main(["verify", str(directory)]) == 1
    assert "is missing" in capsys.readouterr().err
    np.save(array, np.arange(3))
    assert store.main(["from-npy", str(array), str(tmp_path / "other")]) == 1
    assert "wanted are floats" in capsys.readouterr().err
