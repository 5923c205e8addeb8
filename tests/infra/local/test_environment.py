import json
import os
import subprocess
from pathlib import Path

import pytest

from infra.local.environment import as_shell, read_environment, stack_environment, write_environment
from infra.local.layout import Layout, StackError, current_user
from infra.local.stack import Stack


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    stack = Stack(tmp_path / "state", port_options=["s3=2000", "ssh=2001", "ray-dashboard=2002"])
    (stack.layout.state / "ssh").mkdir(parents=True)
    (stack.layout.state / "ssh" / "host_ed25519.pub").write_text("ssh-ed25519 AAAAC3Nza some comment\n")
    return stack


def test_the_connections_are_airflows(stack: Stack) -> None:
    values = stack_environment(ray=stack.ray, ssh=stack.ssh, slurm=stack.slurm)
    slurm = json.loads(values["AIRFLOW_CONN_SLURM"])
    assert (slurm["conn_type"], slurm["host"], slurm["port"]) == ("ssh", "127.0.0.1", 2001)
    assert slurm["login"] == current_user()
    assert slurm["extra"]["host_key"] == "ssh-ed25519 AAAAC3Nza"
    assert slurm["extra"]["no_host_key_check"] is False
    assert values["AIRFLOW_CONN_RAY"] == "http://127.0.0.1:2002"
    assert values["AWS_ENDPOINT_URL"] == "http://127.0.0.1:2000"
    assert json.loads(values["AIRFLOW_CONN_AWS_DEFAULT"])["extra"]["endpoint_url"] == "http://127.0.0.1:2000"


def test_the_file_gives_back_what_was_written_and_is_private(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    values = {"A": "plain", "B": '{"json": "a = b"}', "C": "it's"}
    write_environment(layout, values)
    assert read_environment(layout) == values
    assert layout.environment_file.stat().st_mode & 0o077 == 0


def test_a_shell_reads_the_export_lines(tmp_path: Path) -> None:
    script = as_shell({"A": '{"json": "it\'s $HOME"}'}) + '\nprintf %s "$A"'
    shown = subprocess.run(
        ["sh", "-c", script], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert shown.stdout == '{"json": "it\'s $HOME"}'


def test_without_a_stack_the_message_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="make up"):
        read_environment(Layout.of(tmp_path))
