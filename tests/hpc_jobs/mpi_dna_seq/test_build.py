from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpc_jobs.mpi_dna_seq import build


@pytest.fixture
def own_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for source in build.SOURCES.glob("*.[ch]"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(build, "SOURCES", tmp_path)
    monkeypatch.setattr(build, "OPTIONS", ("-O0", "-std=gnu11", "-fPIC"))  # quicker, and never run
    return tmp_path


def test_a_build_is_kept_until_a_source_changes(own_sources: Path) -> None:
    first = build.build()
    written = first.stat().st_mtime_ns
    assert build.build() == first
    assert first.stat().st_mtime_ns == written
    source = own_sources / "pairs.h"
    source.write_text(source.read_text() + "\n/* newer */\n")
    assert build.build() not in (first, None)
    assert not list(own_sources.glob(".topk-*"))


def test_without_a_compiler_it_says_what_to_install(
    own_sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(build.BuildError, match="install one"):
        build.build()


def test_the_compiler_speaks_for_itself(own_sources: Path) -> None:
    (own_sources / "forms.c").write_text("int broken(")
    with pytest.raises(build.BuildError, match="error:"):
        build.build()
    assert not list(own_sources.glob("*.so"))
    assert not list(own_sources.glob(".topk-*"))


def test_a_path_that_the_processor_lacks_is_refused() -> None:
    with pytest.raises(build.BuildError, match=f"cannot run the path 'sse9', but .*{build.runnable()[-1]}"):
        build.kernel("sse9")
    assert build.runnable()[-1] == "portable"
