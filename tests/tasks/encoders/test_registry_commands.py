import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.encoders.__main__ import main
from tasks.encoders.registry import Registry
from tasks.object_store import ObjectStore, ObjectUri


@pytest.fixture
def registry(s3_root: str) -> Registry:
    return Registry(ObjectStore(), ObjectUri.parse(s3_root) / "encoders")


@pytest.fixture
def versions(registry: Registry, tmp_path: Path) -> list[str]:
    found: list[str] = []
    for number in range(3):
        directory = tmp_path / str(number)
        directory.mkdir()
        (directory / "config.json").write_text("{}")
        (directory / "model.safetensors").write_bytes(bytes([number]))
        card = {"metrics": {"recall@10": number / 10}, "data": {"reads": 5}}
        found.append(registry.register("tiny", directory, card, parent=found[-1] if found else None))
    return found


def run(s3_root: str, command: str, *versions: str) -> int:
    return main([command, "--data-uri", s3_root, "tiny", *versions])


def test_rollbacks_go_back_one_promotion_each(
    s3_root: str, registry: Registry, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for version in versions:
        assert run(s3_root, "promote", version) == 0
    for version in versions[1::-1]:
        assert run(s3_root, "rollback") == 0
        assert registry.current("tiny") == version
    assert run(s3_root, "rollback") == 65
    assert "nothing was current before" in capsys.readouterr().err
    assert run(s3_root, "history") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1].strip() for line in lines] == (
        ["registered"] * 3 + ["promoted"] * 3 + ["rolled back"] * 2
    )
    assert lines[-1].endswith("by a person, without a comparison")


def test_a_pointer_without_moves_is_still_read(s3_root: str, registry: Registry, versions: list[str]) -> None:
    pointer = ObjectUri.parse(s3_root) / "encoders" / "tiny" / "current.json"
    ObjectStore().put_json(pointer, {"version": versions[0]})
    assert registry.promote("tiny", versions[1], expected=versions[0])
    assert registry.rollback("tiny", expected=versions[1])
    assert registry.current("tiny") == versions[0]


def test_of_two_promotions_at_once_one_is_told_who_won(
    s3_root: str,
    registry: Registry,
    versions: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    registry.promote("tiny", versions[0], expected=None)
    both_have_read = threading.Barrier(2)
    put = ObjectStore.put_json

    def put_together(self: ObjectStore, *arguments: object, **condition: object) -> bool:
        both_have_read.wait(timeout=10)
        return put(self, *arguments, **condition)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectStore, "put_json", put_together)
    with ThreadPoolExecutor(2) as pool:
        codes = list(pool.map(lambda version: run(s3_root, "promote", version), versions[1:]))
    assert sorted(codes) == [0, 65]
    winner = versions[1:][codes.index(0)]
    assert registry.current("tiny") == winner
    assert f"{winner} took the place of {versions[0]} meanwhile" in capsys.readouterr().err
    assert len(registry.moves("tiny")) == 2


def test_diff_names_nested_fields(
    s3_root: str, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(s3_root, "diff", *versions[:2]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "metrics.recall@10: 0.0 -> 0.1",
        f"parent: None -> {versions[0]}",
    ]


def test_an_unknown_version_is_refused(s3_root: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(s3_root, "promote", "v1-00000000") == 65
    assert "there is no encoder registry://tiny@v1-00000000" in capsys.readouterr().err


def test_a_rollback_of_what_is_no_longer_current_changes_nothing(
    registry: Registry, versions: list[str]
) -> None:
    for before, version in zip([None, *versions], versions, strict=False):
        assert registry.promote("tiny", version, expected=before)
    assert not registry.rollback("tiny", expected=versions[1])
    assert registry.current("tiny") == versions[2]


def test_a_pointer_that_forgot_its_oldest_moves_still_rolls_back(
    registry: Registry, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.encoders.registry.MOVES_KEPT", 2)
    for before, version in zip([None, *versions], versions, strict=False):
        assert registry.promote("tiny", version, expected=before)
    assert registry.rollback("tiny", expected=versions[2])
    assert registry.current("tiny") == versions[1]
    assert len(registry.moves("tiny")) == 2


def test_batches_of_an_older_version_are_marked_as_not_comparable(
    s3_root: str, registry: Registry, versions: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    registry.promote("tiny", versions[0], expected=None)
    for batch_id in ("b2", "b1"):
        registry.note_use("tiny", versions[0], batch_id)
    registry.promote("tiny", versions[1], expected=versions[0])
    registry.note_use("tiny", versions[1], "b2")  # embedded anew
    assert run(s3_root, "batches") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"b1  {versions[0]}  not comparable with batches of the current version, {versions[1]}",
        f"b2  {versions[1]}",
    ]
