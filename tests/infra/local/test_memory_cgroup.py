from pathlib import Path

import pytest

from infra.local.layout import Layout, StackError
from infra.local.memory_cgroup import HIERARCHY, MemoryCgroup


def test_slurm_is_given_the_stacks_own_group_as_the_hierarchy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, hierarchy = Layout.of(tmp_path / "state"), tmp_path / "memory"
    hierarchy.mkdir()
    layout.make_directories()
    monkeypatch.setattr("infra.local.memory_cgroup.HIERARCHY", hierarchy)
    cgroup = MemoryCgroup(layout)
    assert not cgroup.available()  # a plain directory is no hierarchy
    try:
        cgroup.make()
        cgroup.make()  # a second start finds it made
        (cgroup.mount_point / HIERARCHY.name / "slurm_n1" / "uid_0").mkdir(parents=True)
        assert (hierarchy / layout.runtime.name / "slurm_n1").exists()

        cgroup.remove()
        assert list(hierarchy.iterdir()) == []
        cgroup.remove()  # nothing is there
    finally:
        (cgroup.mount_point / HIERARCHY.name).unlink()
        cgroup.mount_point.rmdir()
        layout.runtime.rmdir()


def test_a_group_with_a_process_in_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.of(tmp_path / "state")
    monkeypatch.setattr("infra.local.memory_cgroup.HIERARCHY", tmp_path)
    (tmp_path / layout.runtime.name).mkdir()
    (tmp_path / layout.runtime.name / "cgroup.procs").write_text("123\n")
    with pytest.raises(StackError, match="live on: 123"):
        MemoryCgroup(layout).remove()
