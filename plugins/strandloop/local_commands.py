"""Running commands on this machine, for an Airflow that lives on a cluster's login node itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from strandloop.completed import COMMAND_TIMEOUT, OUTPUT_LIMIT_BYTES, Completed
from strandloop.errors import ConnectionBroken
from strandloop.slurm_commands import Command

#: Commands that one event loop runs at a time.
COMMANDS_AT_ONCE = 8

# All that a command gets of Airflow's environment: sbatch hands its own environment on to the job, and
# Airflow's holds secrets. A log-in over SSH would have given it little more.
_VARIABLES = ("HOME", "LANG", "LOGNAME", "PATH", "SHELL", "SLURM_CONF", "TMPDIR", "USER")

# Seconds for a process to be gone that was killed; one that hangs in a file system is not waited for.
_END_PATIENCE = 2.0

_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def run_here(command: Command) -> Completed:
    """Run one command to its end.

    :raises ConnectionBroken: if it could not be started, took too long or said too much.
    """
    try:
        process = subprocess.Popen(command.args, **_options())
    except OSError as error:
        raise _broken(f"cannot be started: {error}") from error
    try:
        stdout, stderr = process.communicate(command.stdin, timeout=COMMAND_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise _broken(f"did not end within {COMMAND_TIMEOUT:.0f} s") from error
    finally:
        _end(process.pid, process.returncode)
    return _completed(process.returncode, stdout, stderr)


async def run_here_in_loop(command: Command) -> Completed:
    """Do what :func:`run_here` does without blocking the event loop; cancelling this ends the command."""
    loop = asyncio.get_running_loop()
    async with _places.setdefault(loop, asyncio.Semaphore(COMMANDS_AT_ONCE)):
        answer = _Answer()
        start = asyncio.create_task(loop.subprocess_exec(lambda: answer, *command.args, **_options()))
        try:
            # None of these waits cancels what it waits for: asyncio would hang over a cancelled start (3.11).
            await asyncio.wait([start])
            start.result()
            answer.feed(command.stdin)
            done, _ = await asyncio.wait([answer.rc], timeout=COMMAND_TIMEOUT)
        except OSError as error:
            raise _broken(f"cannot be started: {error}") from error
        finally:
            await asyncio.wait([start])
            if not answer.rc.done() and start.exception() is None:
                answer.abandon()
                await asyncio.wait([answer.rc], timeout=_END_PATIENCE)
    if not done:
        raise _broken(f"did not end within {COMMAND_TIMEOUT:.0f} s")
    return _completed(answer.rc.result(), *(bytes(output) for output in answer.outputs))


class _Answer(asyncio.SubprocessProtocol):
    """Collects what one command says, up to a limit."""

    def __init__(self) -> None:
        self.rc: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.outputs = (bytearray(), bytearray())
        self._transport: asyncio.SubprocessTransport
        self._abandoned = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if sum(map(len, self.outputs)) > OUTPUT_LIMIT_BYTES:
            self.abandon()
        else:
            self.outputs[fd - 1].extend(data)

    def process_exited(self) -> None:
        if self._abandoned:
            # Its children may live on and hold the pipes open.
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()
        self.rc.set_result(self._transport.get_returncode() or 0)

    def feed(self, stdin: bytes) -> None:
        """Give the command its input, and no more. It may end before it has read everything."""
        pipe = self._transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        pipe.write(stdin)
        pipe.close()

    def abandon(self) -> None:
        """End the command."""
        self._abandoned = True
        _end(self._transport.get_pid(), self._transport.get_returncode())


def _options() -> dict[str, Any]:
    home = Path.home()
    return {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "env": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "cwd": home if home.is_dir() else "/",
        # A group of its own, which can be ended as a whole.
        "start_new_session": True,
    }


def _end(pid: int, rc: int | None) -> None:
    if rc is None:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _completed(rc: int, stdout: bytes, stderr: bytes) -> Completed:
    if len(stdout) + len(stderr) > OUTPUT_LIMIT_BYTES:
        raise _broken(f"answered more than {OUTPUT_LIMIT_BYTES / 2**20:.0f} MiB")
    if rc < 0:
        raise _broken(f"was ended by signal {-rc}")
    return Completed(rc, stdout, stderr)


def _broken(words: str) -> ConnectionBroken:
    return ConnectionBroken(f"a command on this machine {words}")
