"""The processes that a stack started: recorded when they start, recognised later, ended as families."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.local.layout import StackError
from infra.local.process_table import (
    Process,
    ancestors,
    boot_id,
    find_process,
    marked,
    process_table,
    with_descendants,
)

MARK = "STRANDLOOP_STACK"
LOG_LINES_SHOWN = 12
# How long to wait for the recorded processes, for what they left behind, and after SIGKILL.
PATIENCE_S = (20.0, 5.0, 10.0)


class ProcessEnded(StackError):
    """A process ended while somebody waited for it."""


@dataclass(frozen=True)
class ProcessRecord:
    """A started process: its id, and what tells it from a later process with the same id."""

    name: str
    pid: int
    started: int
    boot: str
    command: list[str]


class Processes:
    """Starts named processes in sessions of their own and ends them with all they started.

    Every process carries ``STRANDLOOP_STACK=<mark>/<name>/`` in its environment, which its children inherit.
    So a daemon's orphans (a Slurm job step after its slurmd was killed) are found and ended as well.
    """

    def __init__(self, *, records: Path, logs: Path, mark: str) -> None:
        self._records = records
        self._logs = logs
        self._mark = mark

    def start(self, name: str, command: list[str], *, env: Mapping[str, str]) -> None:
        """Start ``command`` with its output appended to ``logs/<name>.log``; it outlives this program."""
        with self.log(name).open("ab") as log:
            started = subprocess.Popen(
                command,
                env={**env, MARK: f"{self._mark}/{name}/"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = find_process(started.pid)
        if process is None:
            raise StackError(f"{name} ended as it started\n{self.log_tail(name)}")
        record = ProcessRecord(name, started.pid, process.started, boot_id(), command)
        self._path(name).write_text(json.dumps(asdict(record), indent=2) + "\n")

    def record(self, name: str) -> ProcessRecord | None:
        """What was recorded when ``name`` was last started."""
        path = self._path(name)
        return ProcessRecord(**json.loads(path.read_text())) if path.exists() else None

    def alive(self, name: str) -> bool:
        """Whether the very process that was recorded still runs."""
        record = self.record(name)
        return record is not None and _is_same(record)

    def recorded(self) -> list[str]:
        """The names of all processes that were started and not ended by :meth:`end`."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def log(self, name: str) -> Path:
        """The file that holds what ``name`` printed."""
        return self._logs / f"{name}.log"

    def log_tail(self, name: str) -> str:
        """The end of the log, indented, with its path: for error messages."""
        path = self.log(name)
        lines = path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:] if path.exists() else []
        return "\n".join([f"the end of {path}:", *(f"    {line}" for line in lines)])

    def wait_until(
        self, probe: Callable[[], str | None], *, what: str, watch: tuple[str, ...], timeout_s: float
    ) -> None:
        """Ask ``probe`` until it gives None; raises with its last answer, or when a watched process ends.

        :param probe: None when all is well, else what is still missing; its OSError counts as no answer.
        """
        deadline = time.monotonic() + timeout_s
        pause_s = 0.05
        while (problem := _answer(probe)) is not None:
            for name in watch:
                if not self.alive(name):
                    raise ProcessEnded(f"{what}: {name} ended early\n{self.log_tail(name)}")
            if time.monotonic() > deadline:
                tails = "\n".join(self.log_tail(name) for name in watch)
                raise StackError(f"{what} is not ready after {timeout_s:.0f} s: {problem}\n{tails}")
            time.sleep(pause_s)
            pause_s = min(0.5, pause_s * 1.5)

    def kill(self, name: str) -> None:
        """End one recorded process on the spot (SIGKILL); what it started lives on, and its record stays."""
        roots = self._roots([name])
        for process in roots:
            _send(process, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S[-1]
        while any(_lives(process) for process in roots):
            if time.monotonic() > deadline:
                raise StackError(f"{name} cannot be killed")
            time.sleep(0.01)

    def end(self, name: str | None = None) -> int:
        """End one recorded process, or all, with everything they started; gives how many ended.

        The recorded processes are asked first (SIGTERM), then what they left behind, then all are killed.
        """
        names = self.recorded() if name is None else [name]
        mark = f"{MARK}={self._mark}/" if name is None else f"{MARK}={self._mark}/{name}/"
        roots = self._roots(names)
        known: dict[tuple[int, int], Process] = {}

        def living_roots() -> list[Process]:
            return [process for process in roots if _lives(process)]

        def living() -> list[Process]:
            known.update({(each.pid, each.started): each for each in self._family(names, mark=mark)})
            return [process for process in known.values() if _lives(process)]

        living()
        stages = (signal.SIGTERM, living_roots), (signal.SIGTERM, living), (signal.SIGKILL, living)
        for (number, members), patience_s in zip(stages, PATIENCE_S, strict=True):
            for process in members():
                _send(process, number)
            deadline = time.monotonic() + patience_s
            while members() and time.monotonic() < deadline:
                time.sleep(0.05)
        if left := living():
            raise StackError(f"these processes cannot be ended: {', '.join(str(each.pid) for each in left)}")
        for each in names:
            self._path(each).unlink(missing_ok=True)
        return len(known)

    def _roots(self, names: list[str]) -> list[Process]:
        records = [record for name in names if (record := self.record(name)) is not None]
        found = [find_process(record.pid) for record in records if _is_same(record)]
        return [process for process in found if process is not None]

    def _family(self, names: list[str], *, mark: str) -> list[Process]:
        """The named processes, their sessions, their descendants, and whatever carries the mark."""
        table = process_table()
        roots = {process.pid for process in self._roots(names)}
        in_sessions = {process.pid for process in table.values() if process.session in roots}
        family = with_descendants(roots | in_sessions | marked(mark, table), table)
        return [table[pid] for pid in family - ancestors(os.getpid(), table)]

    def _path(self, name: str) -> Path:
        return self._records / f"{name}.json"


def _answer(probe: Callable[[], str | None]) -> str | None:
    try:
        return probe()
    except OSError as error:
        return f"no answer: {error}"


def _is_same(record: ProcessRecord) -> bool:
    process = find_process(record.pid)
    return process is not None and process.started == record.started and record.boot == boot_id()


def _lives(process: Process) -> bool:
    found = find_process(process.pid)
    return found is not None and found.started == process.started


def _send(process: Process, number: signal.Signals) -> None:
    """Signal a process if its id still means that process."""
    if _lives(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return  # it ended between the look and the signal
