import multiprocessing
from pathlib import Path

import pytest

from tasks.encoders.node_cache import on_this_node
from tasks.errors import StorageError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STRANDLOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Source:
    """Counts its fetches in a file, so that those of other processes are counted too."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def fetch(self, into: Path) -> None:
        with self.log.open("a") as file:
            file.write("fetched\n")
        (into / "sub").mkdir()
        (into / "weights").write_bytes(bytes(5_000_000))
        (into / "sub" / "words").write_text("ACGT")

    @property
    def fetches(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "log")


def no_network(into: Path) -> None:
    (into / "half").write_text("of the f")
    raise StorageError("the hub cannot be reached")


def ask(source: Source, together: "multiprocessing.synchronize.Barrier") -> None:
    together.wait()
    directory = on_this_node("a/model-1", source.fetch)
    assert (directory / "weights").stat().st_size == 5_000_000


def test_workers_of_one_node_fetch_once(source: Source) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(3)
    workers = [context.Process(target=ask, args=(source, together)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert source.fetches == 1


def test_what_is_there_needs_no_network(source: Source) -> None:
    directory = on_this_node("model", source.fetch)
    assert on_this_node("model", no_network) == directory
    assert (directory / "sub" / "words").read_text() == "ACGT"


def test_offline_the_reason_comes_through_and_nothing_stays(cache: Path, source: Source) -> None:
    with pytest.raises(StorageError, match="the hub cannot be reached"):
        on_this_node("model", no_network)
    assert [path.name for path in cache.iterdir()] == ["model.lock"]
    on_this_node("model", source.fetch)
    assert source.fetches == 1


@pytest.mark.parametrize("damage", ["changed", "removed", "added"])
def test_damaged_files_are_fetched_again(damage: str, source: Source) -> None:
    directory = on_this_node("model", source.fetch)
    if damage == "changed":
        (directory / "sub" / "words").write_text("ACGA")
    elif damage == "removed":
        (directory / "weights").unlink()
    else:
        (directory / "more").write_text("")
    assert on_this_node("model", source.fetch) == directory
    assert sorted(path.name for path in directory.iterdir()) == ["sub", "weights"]
    assert (directory / "sub" / "words").read_text() == "ACGT"
    assert source.fetches == 2


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STRANDLOOP_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set STRANDLOOP_CACHE to a directory"):
        on_this_node("model", source.fetch)
