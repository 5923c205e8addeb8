from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpc_jobs import store, store_commands
from hpc_jobs.store import StoreError, StoreManifest


def unit_vectors(rows: int, dim: int) -> np.ndarray:
    vectors = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write(
    directory: Path, vectors: np.ndarray, *, shard_rows: int = 100, dtype: str = "float32"
) -> StoreManifest:
    ids = pa.array([f"ecoli:{row + 1}" for row in range(len(vectors))], pa.string())
    return store.write_store(
        directory,
        ids,
        vectors,
        encoder_uri="registry://kmer-mlp@v1-00000000",
        encoder_revision="ab" * 32,
        dtype=dtype,
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


@pytest.mark.parametrize(("dtype", "bytes_a_vector"), [("float16", 2 * 48), ("int8", 48 + 4)])
def test_smaller_dtypes_come_back_within_their_bounds(
    tmp_path: Path, dtype: str, bytes_a_vector: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP_ROWS", 16)
    vectors = unit_vectors(250, 48)
    vectors[3] = 0
    vectors[4] = np.eye(48)[7]
    manifest = write(tmp_path, vectors, dtype=dtype)
    assert (manifest.dtype, manifest.normalised) == (dtype, True)
    assert store.verify(tmp_path) == manifest == StoreManifest.from_json(manifest.to_json())
    found = store.read_vectors(tmp_path, 0, 250)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(store.read_vectors(tmp_path, 99, 222), found[99:222])
    np.testing.assert_array_equal(found[3:5], vectors[3:5])
    if dtype == "float16":
        assert (np.abs(found - vectors) <= np.maximum(np.abs(vectors) * 2**-11, 2**-25)).all()
    else:
        bound = np.sqrt(48) * np.abs(vectors).max(axis=1) / 127
        assert (np.linalg.norm(found - vectors, axis=1) <= bound).all()
        lengths = np.linalg.norm(np.delete(found, 3, axis=0), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-6)
    per_vector = sum(shard.bytes for shard in manifest.shards) / 250
    ids = sum(shard.bytes for shard in write(tmp_path / "float32", vectors).shards) / 250 - 4 * 48
    assert per_vector == pytest.approx(ids + bytes_a_vector, abs=8)


def test_int8_refuses_what_it_cannot_say() -> None:
    vectors = unit_vectors(3, 4)
    vectors[1, 2] = np.nan
    with pytest.raises(StoreError, match="row 1 holds NaN"):
        store.shard_bytes(pa.array(["a", "b", "c"]), vectors, "int8")


def test_a_shard_of_another_dtype_is_a_problem(tmp_path: Path) -> None:
    """Two bytes a component or four: the columns of a shard could not tell, its metadata can."""
    manifest = write(tmp_path, unit_vectors(3, 8), dtype="float16")
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**manifest.to_json(), "dim": 4, "dtype": "float32"}))
    with pytest.raises(StoreError, match="does not hold read_id and vectors of 4 x float32"):
        store.verify(tmp_path)


def test_an_export_has_the_same_vectors_as_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "store", unit_vectors(250, 6), dtype="int8")
    out = tmp_path / "lists"
    command = ["export", str(tmp_path / "store"), str(out), "--format", "fixed-size-list"]
    assert store_commands.main(command) == 0
    table = pq.read_table(out)
    assert table["vector"].type.list_size == 6
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, 6), store.read_vectors(tmp_path / "store", 0, 250))
    assert table["read_id"].to_pylist() == store.read_ids(tmp_path / "store", 0, 250).to_pylist()
    assert store_commands.main(command) == 1
    assert "exists already" in capsys.readouterr().err


def test_lance_is_asked_for_by_name_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    write(tmp_path / "store", unit_vectors(3, 2))
    out = str(tmp_path / "out")
    assert store_commands.main(["export", str(tmp_path / "store"), out, "--format", "lance"]) == 1
    assert "pip install pylance" in capsys.readouterr().err


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
        ("dtype", "float64", "float64 cannot be read"),
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
    assert store_commands.main(["from-npy", str(array), str(directory)]) == 0
    assert store_commands.main(["to-npy", str(directory), str(back)]) == 0
    np.testing.assert_array_equal(np.load(back), np.load(array))
    assert store_commands.main(["info", str(directory)]) == 0
    assert store_commands.main(["verify", str(directory)]) == 0
    assert "20 x 6 float32 in 1 shards, normalised" in capsys.readouterr().out
    (directory / "part-00000.parquet").unlink()
    assert store_commands.main(["verify", str(directory)]) == 1
    assert "is missing" in capsys.readouterr().err
    np.save(array, np.arange(3))
    assert store_commands.main(["from-npy", str(array), str(tmp_path / "other")]) == 1
    assert "wanted are floats" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(250, 6), (0, 6)])
def test_to_npy_writes_the_very_file_that_is_named(
    tmp_path: Path, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP_ROWS", 16)
    vectors = unit_vectors(*shape)
    write(tmp_path / "store", vectors)
    assert store_commands.main(["to-npy", str(tmp_path / "store"), str(tmp_path / "vectors")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "vectors"), vectors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "vectors"]


def test_to_npy_of_a_damaged_store_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "store", unit_vectors(20, 6))
    shard = tmp_path / "store" / "part-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-1])
    assert store_commands.main(["to-npy", str(tmp_path / "store"), str(tmp_path / "vectors.npy")]) == 1
    assert "part-00000.parquet has" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_files_that_are_no_arrays_and_paths_that_are_no_place_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "store", unit_vectors(3, 2))
    np.savez(tmp_path / "several.npz", np.zeros((2, 3)))
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "objects.npy", np.array([["a", 1]], dtype=object), allow_pickle=True)
    for name in ("several.npz", "empty.npy", "objects.npy", "missing.npy"):
        assert store_commands.main(["from-npy", str(tmp_path / name), str(tmp_path / "new")]) == 1
        assert name in capsys.readouterr().err
    np.save(tmp_path / "fine.npy", unit_vectors(3, 2))
    for command in (
        ["from-npy", str(tmp_path / "fine.npy"), str(tmp_path / "fine.npy" / "below")],
        ["to-npy", str(tmp_path / "store"), str(tmp_path / "nowhere" / "x.npy")],
    ):
        assert store_commands.main(command) == 1
        assert command[-1].rpartition("/")[0] in capsys.readouterr().err
