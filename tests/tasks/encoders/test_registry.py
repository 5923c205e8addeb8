from pathlib import Path

import pytest

from tasks.encoders.registry import Registry
from tasks.errors import InvalidEncoder
from tasks.object_store import ObjectStore, ObjectUri


@pytest.fixture
def store(s3_root: str) -> ObjectStore:
    return ObjectStore()


@pytest.fixture
def encoders(s3_root: str) -> ObjectUri:
    return ObjectUri.parse(s3_root) / "encoders"


@pytest.fixture
def registry(store: ObjectStore, encoders: ObjectUri) -> Registry:
    return Registry(store, encoders)


def written(directory: Path, weights: bytes) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(weights)
    return directory


def test_a_registered_version_comes_back_as_it_was(registry: Registry, tmp_path: Path) -> None:
    version = registry.register(
        "tiny", written(tmp_path / "a", b"one"), {"metrics": {"recall@10": 0.5}}, parent=None
    )
    assert version == "v1-7692c3ad"
    (tmp_path / "back").mkdir()
    registry.fetch("tiny", version, tmp_path / "back")
    card = registry.card("tiny", version)
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == b"one"
    assert card["metrics"] == {"recall@10": 0.5}
    assert (card["name"], card["version"], card["parent"]) == ("tiny", version, None)
    assert card["files"].keys() == {"config.json", "model.safetensors"}


def test_the_same_weights_are_registered_once(registry: Registry, tmp_path: Path) -> None:
    directory = written(tmp_path / "a", b"one")
    version = registry.register("tiny", directory, {"note": "first"}, parent=None)
    assert registry.register("tiny", directory, {"note": "second"}, parent=None) == version
    assert registry.card("tiny", version)["note"] == "first"


def test_a_child_is_of_the_next_generation(registry: Registry, tmp_path: Path) -> None:
    first = registry.register("tiny", written(tmp_path / "a", b"one"), {}, parent=None)
    second = registry.register("tiny", written(tmp_path / "b", b"two"), {}, parent=first)
    assert second.startswith("v2-")
    assert registry.card("tiny", second)["parent"] == first


def test_a_changed_file_is_refused(
    registry: Registry, store: ObjectStore, encoders: ObjectUri, tmp_path: Path
) -> None:
    version = registry.register("tiny", written(tmp_path / "a", b"one"), {}, parent=None)
    store.put_bytes(encoders / "tiny" / version / "model.safetensors", b"another")
    with pytest.raises(InvalidEncoder, match=r"model\.safetensors has SHA-256 .* but its card says"):
        registry.fetch("tiny", version, tmp_path)


def test_a_lost_file_is_named(
    registry: Registry, store: ObjectStore, encoders: ObjectUri, tmp_path: Path
) -> None:
    version = registry.register("tiny", written(tmp_path / "a", b"one"), {}, parent=None)
    store.delete(encoders / "tiny" / version / "config.json")
    with pytest.raises(InvalidEncoder, match=r"config\.json is missing, although its card names it"):
        registry.fetch("tiny", version, tmp_path)


def test_of_two_promotions_one_wins(registry: Registry, tmp_path: Path) -> None:
    first = registry.register("tiny", written(tmp_path / "a", b"one"), {}, parent=None)
    mine = registry.register("tiny", written(tmp_path / "b", b"two"), {}, parent=first)
    theirs = registry.register("tiny", written(tmp_path / "c", b"three"), {}, parent=first)
    assert registry.current("tiny") is None
    assert not registry.promote("tiny", mine, expected=first)
    assert registry.promote("tiny", first, expected=None)
    assert not registry.promote("tiny", mine, expected=None)
    assert registry.promote("tiny", theirs, expected=first)
    assert not registry.promote("tiny", mine, expected=first)
    assert registry.current("tiny") == theirs


def test_only_what_is_registered_can_be_promoted(registry: Registry) -> None:
    with pytest.raises(InvalidEncoder, match="there is no encoder registry://tiny@v1-00000000"):
        registry.promote("tiny", "v1-00000000", expected=None)


def test_half_an_encoder_is_not_registered(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidEncoder, match=r"model\.safetensors is missing"):
        registry.register("tiny", tmp_path, {}, parent=None)
