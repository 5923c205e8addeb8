"""Each measurement is a process of its own: nothing is warm by accident, and its memory can be told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.bench_daily_run import ROOT

RIVALS = ROOT / ".local" / "venvs" / "bench"
"""Where the rivals' packages are, that are no dependency of the project."""
SAMPLING_SECONDS = 0.25


class MeasurementFailed(Exception):
    """A measurement ended without a result; the message has the end of what it printed."""


@dataclass(frozen=True)
class Ended:
    """A command that ended well.

    :param out: what it wrote to standard output.
    :param seconds: from its start to its end.
    :param peak_memory_bytes: the largest sum of the proportional set sizes (shared pages are counted once) of the
        process and all that it started, looked at four times a second.
    :param peak_without_files_bytes: the same without mapped files, whose pages the system can drop at any time.
    """

    out: str
    seconds: float
    peak_memory_bytes: int
    peak_without_files_bytes: int


def measured(
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    threads: int = 1,
    timeout_seconds: float = 600,
) -> dict[str, Any]:
    """Run ``python -m tests.benchmarks.<module>``; gives the JSON object of its last line.

    ``peak_memory_bytes`` of :class:`Ended` is added.
    """
    ended = run_measured(
        [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
        shown=" ".join(argument for argument in (module, *arguments) if "/" not in argument)[:90],
        environment=environment,
        threads=threads,
        timeout_seconds=timeout_seconds,
    )
    result: dict[str, Any] = json.loads(ended.out.splitlines()[-1])
    return {**result, "peak_memory_bytes": ended.peak_memory_bytes}


def run_measured(
    command: Sequence[str],
    *,
    shown: str,
    environment: Mapping[str, str] | None = None,
    threads: int = 1,
    timeout_seconds: float = 600,
) -> Ended:
    """Run a command on so many threads of each library.

    :param shown: what is said of it while it runs.
    :raises MeasurementFailed: it exits otherwise than with 0, or takes too long.
    """
    values = {
        **os.environ,
        **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        "PYTHONPATH": f"{ROOT}{os.pathsep}{RIVALS}",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        **(environment or {}),
    }
    print(f"measuring {shown} ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    child = subprocess.Popen(
        command, cwd=ROOT, env=values, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peaks, ended = [0, 0], threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLING_SECONDS):
            peaks[:] = map(max, peaks, family_bytes(child.pid))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        out, err = child.communicate(timeout=timeout_seconds)
        seconds = time.monotonic() - started
    except BaseException as error:  # nothing is left behind when a person ends this either
        end_family(child.pid)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise MeasurementFailed(f"{' '.join(command)} took more than {timeout_seconds:g} s") from error
    finally:
        ended.set()
        sampler.join()
        print(f"({time.monotonic() - started:.0f} s)", file=sys.stderr, flush=True)
    if child.returncode != 0:
        raise MeasurementFailed(f"{' '.join(command)}\n{out[-2000:]}{err[-4000:]}")
    return Ended(out, seconds, *peaks)


def family_bytes(pid: int) -> tuple[int, int]:
    """Proportional set size of a process and its descendants, and the same without mapped files.

    Those that end meanwhile count as nothing.
    """
    whole = files = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(OSError):
                lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
                kib = {name: int(size.split()[0]) for name, size in (line.split(":") for line in lines)}
                whole += kib["Pss"] * 1024
                files += kib["Pss_File"] * 1024
    return whole, whole - files


def end_family(pid: int) -> None:
    """Kill a process and its descendants."""
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [*parent.children(recursive=True), parent]:
            with suppress(psutil.Error):
                process.kill()
