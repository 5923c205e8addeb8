from pathlib import Path

import pytest

from infra.local.layout import Layout, StackError


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path / ("a-rather-long-directory-name" * 5))


def test_the_socket_directory_leaves_room_for_the_names_that_ray_and_slurm_append(layout: Layout) -> None:
    ray_socket = "ray/session_2026-11-20_10-00-00_123456_4194304/sockets/plasma_store.1"
    assert len(str(layout.runtime / ray_socket)) < 107


def test_two_states_have_different_socket_directories(layout: Layout, tmp_path: Path) -> None:
    assert layout.runtime != Layout.of(tmp_path).runtime


def test_a_socket_directory_that_others_could_reach_is_refused(layout: Layout) -> None:
    layout.runtime.mkdir(mode=0o755)
    try:
        with pytest.raises(StackError, match="does not belong to you alone"):
            layout.make_directories()
    finally:
        layout.runtime.rmdir()
