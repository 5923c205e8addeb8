"""Resident memory of a real ``airflow triggerer``, without tasks and with all of them deferred."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.bench_daily_run import ROOT

DAGS = Path(__file__).with_name("dags")


def triggerer_memory(
    environment: Mapping[str, str], *, state: Path, jobs: Path, waits: int, poll_seconds: float
) -> dict[str, Any]:
    """Measure both; Airflow's database is one SQLite file below ``state``.

    :param jobs: file with a list of job references, all of jobs that wait in the queue.
    """
    airflow = {
        **{name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "BENCH_JOBS": str(jobs),
        "AIRFLOW_HOME": str(state / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(state / "no-plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__API_AUTH__JWT_SECRET": os.urandom(32).hex(),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{state}/airflow.db",
    }
    for module in (("airflow", "db", "migrate"), ("airflow", "dags", "reserialize")):
        _python(*module, environment=airflow)
    with _triggerer(airflow, log=state / "triggerer.log") as pid:
        without = _settled(pid)
    _python("tests.benchmarks.deferred_tasks", environment=airflow)
    logs = state / "airflow" / "logs"
    with _triggerer(airflow, log=state / "triggerer.log") as pid:
        _until(lambda: _waiting(logs) == waits, what=f"{waits} triggers have seen their job")
        time.sleep(2 * poll_seconds)  # measured over time, not waited for
        with_all = _settled(pid)
    said = (state / "triggerer.log").read_text()
    return {
        "supervisor_and_runner_mib_without_tasks": without,
        "supervisor_and_runner_mib_with_all_waits": with_all,
        "kib_per_wait": round((sum(with_all) - sum(without)) * 1024 / waits, 1),
        "warnings_of_a_blocked_loop": said.count("async thread was blocked"),
    }


def _python(*module: str, environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", *module]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{' '.join(module)}: {done.stderr[-3000:]}"


@contextmanager
def _triggerer(environment: Mapping[str, str], *, log: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _until(lambda: len(_processes(process.pid)) == 2, what="the triggerer has its runner")
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def _waiting(logs: Path) -> int:
    return sum("is PENDING" in path.read_text() for path in logs.rglob("*.trigger.*.log"))


def _processes(pid: int) -> list[int]:
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def _settled(pid: int) -> list[float]:
    """Resident MiB of the supervisor and its runner, once they stay for 5 s."""
    seen, since = _mebibytes(pid), time.monotonic()

    def steady() -> bool:
        nonlocal seen, since
        if (now := _mebibytes(pid)) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 5

    _until(steady, what="the triggerer's memory stays")
    return seen


def _mebibytes(pid: int) -> list[float]:
    page = os.sysconf("SC_PAGE_SIZE")
    pages = [int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in _processes(pid)]
    return [round(count * page / 2**20, 1) for count in pages]


def _until(condition: Callable[[], bool], *, what: str, seconds: float = 90.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
