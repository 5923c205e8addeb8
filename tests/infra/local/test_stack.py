from pathlib import Path

import pytest

from infra.local.layout import StackError
from infra.local.stack import Stack


def test_a_part_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"shared, .*accounting, .*not slrum"):
        Stack(tmp_path).up(("shared", "slrum"))
    assert list(tmp_path.iterdir()) == []


def test_a_stack_of_no_parts_has_an_environment(tmp_path: Path) -> None:
    stack = Stack(tmp_path, free_ports=True)
    try:
        stack.up(())
        assert stack.layout.environment_file.exists()
    finally:
        stack.down()
    assert not stack.layout.environment_file.exists()
