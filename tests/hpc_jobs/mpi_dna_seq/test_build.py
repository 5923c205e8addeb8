from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpc_jobs.mpi_dna_seq import build


@pytest.fixture
def own_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    source = Path(shutil.copy(build.SOURCE, tmp_path))
    monkeypatch.setattr(build, "SOURCE", source)
    return source


def test_a_build_is_kept_until_its_source_changes(own_source: Path) -> None:
    first = build.build()
    written = first.stat().st_mtime_ns
    assert build.build() == first
    assert first.stat().st_mtime_ns == written
    own_source.write_text(own_source.read_text() + "\n/* newer */\n")
    assert build.build() not in (first, None)
    assert not list(own_source.parent.glob(".topk-*"))


def test_without_a_compiler_it_says_what_to_install(
    own_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(build.BuildError, match="install one"):
        build.build()


def test_the_compiler_speaks_for_itself(own_source: Path) -> None:
    own_source.write_text("int broken(")
    with pytest.raises(build.BuildError, match="error:"):
        build.build()
    assert not list(own_source.parent.glob("*.so"))
