"""Commands that setup runs: shown, and explained when they fail."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LOCAL = PROJECT / ".local"


class SetupError(Exception):
    """Setup cannot go on; the message says what to do."""


def run(command: list[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a command with its output on the terminal; raises where it fails."""
    shown = shlex.join(command).replace(f"{PROJECT}/", "")
    print(f"$ {shown}", flush=True)
    if (code := subprocess.run(command, env=env, cwd=cwd, check=False).returncode) != 0:
        raise SetupError(f"this command failed with exit status {code}: {shown}")


def as_root(command: list[str]) -> list[str]:
    """The command as it runs with root's rights; raises where this user cannot get them."""
    if os.getuid() == 0:
        return command
    if shutil.which("sudo") is None:
        raise SetupError(f"run this as root, then `make setup` again: {shlex.join(command)}")
    return ["sudo", *command]
