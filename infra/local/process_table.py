"""What /proc says of the processes of this machine: parents, sessions, start times and marks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One line of the process table. ``pid`` and ``started`` together name a process for good."""

    pid: int
    parent: int
    session: int
    started: int
    """Clock ticks from boot to the start of the process."""


def process_table() -> dict[int, Process]:
    """Every living process by its id; zombies count as ended."""
    found = (find_process(int(entry.name)) for entry in PROC.iterdir() if entry.name.isdecimal())
    return {process.pid: process for process in found if process is not None}


def find_process(pid: int) -> Process | None:
    """The process with this id, or None where there is none or only a zombie."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the program's name in brackets and may itself hold blanks and brackets.
    fields = text.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, parent=int(fields[1]), session=int(fields[3]), started=int(fields[19]))


def boot_id() -> str:
    """Changes with every boot, so that records of an earlier one are not taken for living processes."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def with_descendants(roots: Iterable[int], table: dict[int, Process]) -> set[int]:
    """The roots and everything below them in ``table``."""
    children: dict[int, list[int]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process.pid)
    family: set[int] = set()
    waiting = [pid for pid in roots if pid in table]
    while waiting:
        pid = waiting.pop()
        if pid not in family:
            family.add(pid)
            waiting += children.get(pid, [])
    return family


def marked(beginning: str, table: dict[int, Process]) -> set[int]:
    """This user's processes that were started with a ``NAME=VALUE`` in their environment that begins so."""
    wanted = beginning.encode()
    found = set()
    for pid in table:
        try:
            if (PROC / str(pid)).stat().st_uid != os.getuid():
                continue
            variables = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or hides its environment as sshd's sessions do
        if any(variable.startswith(wanted) for variable in variables):
            found.add(pid)
    return found


def ancestors(pid: int, table: dict[int, Process]) -> set[int]:
    """``pid`` and all its parents."""
    line = set()
    while pid in table and pid not in line:
        line.add(pid)
        pid = table[pid].parent
    return line
