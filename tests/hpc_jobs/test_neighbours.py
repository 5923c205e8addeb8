from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpc_jobs import neighbours
from hpc_jobs.neighbours import NeighbourManifest, NeighboursError


def write(directory: Path) -> NeighbourManifest:
    """Three reads with two neighbours each, in two parts."""
    ids, scores = (
        np.array([[1, 2], [0, 2], [1, 0]]),
        np.array([[0.9, 0.5], [0.9, 0.7], [0.7, 0.5]], np.float32),
    )
    parts = [
        neighbours.write_part(directory, 0, first_row=0, ids=ids[:2], scores=scores[:2]),
        neighbours.write_part(directory, 1, first_row=2, ids=ids[2:], scores=scores[2:]),
    ]
    manifest = NeighbourManifest(rows=3, k=2, store_sha256="ab", files=tuple(parts))
    neighbours.write_manifest(directory, manifest)
    return manifest


def test_the_parts_read_back_as_one_table(tmp_path: Path) -> None:
    manifest = write(tmp_path)
    assert neighbours.find(tmp_path) == manifest
    table = neighbours.read(tmp_path)
    assert table["query"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert table["neighbour"].to_pylist() == [1, 2, 0, 2, 1, 0]
    assert table["rank"].to_pylist() == [1, 2, 1, 2, 1, 2]
    assert manifest.edges == 6


def test_a_damaged_part_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "knn-00001.parquet"
    body = bytearray(path.read_bytes())
    body[10] ^= 1
    path.write_bytes(body)
    with pytest.raises(NeighboursError, match=r"knn-00001\.parquet is missing or damaged"):
        neighbours.read(tmp_path)


def test_a_result_without_manifest_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "manifest.json").unlink()
    assert neighbours.find(tmp_path) is None
    with pytest.raises(NeighboursError, match="not computed to its end"):
        neighbours.verify(tmp_path)
    neighbours.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"rows": 3}')
    with pytest.raises(NeighboursError, match="not the manifest of a k-NN result"):
        neighbours.find(tmp_path)
