from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hpc_jobs.mpi_dna_seq.checkpoint import Checkpoint, CheckpointError

OF = {"store_sha256": "ab", "k": 3, "ranks": [[2, 1]]}


def lists(value: int) -> list[np.ndarray]:
    return [
        np.full((4, 3), value, np.float32),
        np.full((4, 3), value, np.int64),
        np.empty((0, 3), np.float32),
    ]


def save(directory: Path, units: int) -> Checkpoint:
    checkpoint = Checkpoint(directory, OF)
    files = [
        checkpoint.write(member, units, lists(units + place)) for place, member in enumerate(("0.0", "0.1"))
    ]
    checkpoint.commit(units, 100 * units, dict(files))
    return checkpoint


def test_what_was_saved_last_is_read_back_and_the_former_is_gone(tmp_path: Path) -> None:
    save(tmp_path / "there", 7)
    save(tmp_path / "there", 9)
    checkpoint, arrays = Checkpoint(tmp_path / "there", OF), lists(0)
    assert checkpoint.find() == (9, 900)
    checkpoint.read("0.1", 9, arrays)
    for found, expected in zip(arrays, lists(10), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert len(list((tmp_path / "there").iterdir())) == 3
    checkpoint.remove()
    assert not (tmp_path / "there").exists()


def test_files_without_their_manifest_are_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 7)
    Checkpoint(tmp_path, OF).write("0.0", 9, lists(9))
    assert Checkpoint(tmp_path, OF).find() == (7, 700)
    assert Checkpoint(tmp_path / "nowhere", OF).find() is None


@pytest.mark.parametrize("other", [{"store_sha256": "cd"}, {"k": 4}, {"ranks": [[1, 2]]}, {"metric": "dot"}])
def test_the_checkpoint_of_another_computation_is_refused(tmp_path: Path, other: dict[str, object]) -> None:
    save(tmp_path, 7)
    with pytest.raises(CheckpointError, match=rf"another computation \({next(iter(other))} .* instead of"):
        Checkpoint(tmp_path, OF | other).find()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 7)
    (path,) = tmp_path.glob("*-0.0.lists")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"is not as checkpoint\.json says"):
        checkpoint.read("0.0", 7, lists(0))
    path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoint.read("0.0", 7, lists(0))
    (tmp_path / "checkpoint.json").write_text(json.dumps({"of": OF})[:-3])
    with pytest.raises(CheckpointError, match=r"remove .* to compute from the beginning"):
        checkpoint.find()
